"""The last touches to the generated schema: names of path parameters, words for statuses, headers, examples."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

from boilerhouse.core.api.schema_examples import BY_NAME, COMPONENTS, REQUESTS, TIME, UUID
from boilerhouse.core.api.serializers import camel

Schema = dict[str, Any]

TAGS = {
    "workloads": "How to run one kind of container; each change is a new version that rolls through its pools.",
    "pools": "Sets of warm containers of one workload.",
    "containers": "What pools own; each serves one tenant in its whole life.",
    "tenants": "Claim a container, work in it, release it.",
    "sync-specs": "What of a pool's containers is copied where and when.",
    "sync-runs": "Executions of sync specs.",
    "credentials": "Stored access to sinks; written, never read.",
    "registry-credentials": "Stored access to registries of images; written, never read.",
    "events": "What happened, as a list and as streams (also the WebSocket `/ws/events`).",
    "audit": "Who changed what.",
    "api-keys": "Who may ask.",
    "settings": "What admins set while Boilerhouse runs.",
    "stats": "The deployment in numbers.",
    "health": "Whether it works.",
    "metrics": "For Prometheus.",
}
WORDS = {
    "200": "Done",
    "201": "Made",
    "202": "Accepted; it goes on",
    "204": "Done; nothing to show",
    "400": "The body is not JSON, or holds a NUL character",
    "401": "No key, or one that is wrong, expired or revoked",
    "403": "The key's role may not do that",
    "404": "There is no such thing",
    "408": "The body did not come in time",
    "409": "Not in its present state",
    "412": "The object is no longer what `If-Match` names",
    "413": "The body is larger than 1 MiB",
    "415": "The body is not `application/json`",
    "422": "Something in the request cannot be; `errors` says what and where",
    "429": "Too many requests of this key",
    "502": "Something beyond Boilerhouse failed",
    "503": "Not now; try again",
    "504": "Not within its time",
}
TENANT_ID = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._@:-]{0,127}$"}
REQUEST_ID = {"description": "Names this request in the log.", "schema": {"type": "string"}}
RETRY_AFTER = {"description": "Seconds after which to try again.", "schema": {"type": "integer"}}
ETAG = {"description": "Of this representation, for `If-Match`.", "schema": {"type": "string"}}


def finish(result: Schema, generator: Any, request: Any, public: bool) -> Schema:
    """A postprocessing hook of drf-spectacular."""
    components: Schema = result["components"]["schemas"]
    examples = _Examples(components)
    result["paths"] = {_camel_path(path): operations for path, operations in result["paths"].items()}
    for operations in result["paths"].values():
        has_etag = "put" in operations
        for method, operation in operations.items():
            _finish_operation(operation, examples, has_etag=has_etag and method != "delete")
            if method == "post" and operation["operationId"].startswith("create"):
                _header(operation, "201", "ETag", ETAG)
    _link(result["paths"])
    result["tags"] = [{"name": name, "description": text} for name, text in TAGS.items()]
    return result


LINKS = {
    "createWorkload": {"workloadId": "$response.body#/id"},
    "createPool": {"poolId": "$response.body#/id"},
    "createSyncSpec": {"specId": "$response.body#/id"},
    "createCredential": {"credentialId": "$response.body#/id"},
    "createRegistryCredential": {"registryCredentialId": "$response.body#/id"},
    "createApiKey": {"keyId": "$response.body#/id"},
    "claimContainer": {"tenantId": "$request.path.tenantId", "containerId": "$response.body#/containerId"},
    "listContainers": {"containerId": "$response.body#/items/0/id"},
    "syncTenant": {"runId": "$response.body#/runs/0/id"},
    "listTenantBackups": {"tenantId": "$request.path.tenantId", "backupId": "$response.body#/items/0/id"},
}
"""Where the ids come from that other operations name in their paths."""


def _link(paths: Schema) -> None:
    operations = [(path, operation) for path, methods in paths.items() for operation in methods.values()]
    for _, source in operations:
        known = LINKS.get(source["operationId"], {})
        for path, target in operations:
            wanted = re.findall(r"\{(\w+)\}", path)
            if known and wanted and set(wanted) <= set(known) and target is not source:
                done = next(response for status, response in source["responses"].items() if status.startswith("2"))
                link = {"operationId": target["operationId"], "parameters": {name: known[name] for name in wanted}}
                done.setdefault("links", {})[target["operationId"]] = link


def _camel_path(path: str) -> str:
    return re.sub(r"\{(\w+)\}", lambda match: f"{{{camel(match[1])}}}", path)


def _finish_operation(operation: Schema, examples: _Examples, *, has_etag: bool) -> None:
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path":
            parameter["name"] = camel(parameter["name"])
            parameter["schema"] = dict(TENANT_ID) if parameter["name"] == "tenantId" else {"type": "string"}
            parameter["example"] = BY_NAME[parameter["name"]]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if body is not None:
        body["example"] = REQUESTS[operation["operationId"]]
        operation["requestBody"]["required"] = not operation.pop("x-body-optional", False)
    for status, response in operation["responses"].items():
        codes = response.pop("x-codes", None)
        if codes:
            response["description"] = f"{WORDS[status]}: {', '.join(f'`{code}`' for code in codes)}."
        elif not response.get("description"):
            response["description"] = f"{WORDS[status]}."
        for kind, content in response.get("content", {}).items():
            if kind == "application/problem+json":
                content["example"] = _problem(status, (codes or ["error"])[0])
            elif kind == "application/json":
                content["example"] = examples.of(content["schema"])
        _header(operation, status, "X-Request-ID", REQUEST_ID)
        if status in ("429", "503"):
            _header(operation, status, "Retry-After", RETRY_AFTER)
        if has_etag and status == "200":
            _header(operation, status, "ETag", ETAG)


def _header(operation: Schema, status: str, name: str, header: Schema) -> None:
    if status in operation["responses"]:
        operation["responses"][status].setdefault("headers", {})[name] = header


def _problem(status: str, code: str) -> Schema:
    errors = []
    if status == "422":
        errors = [{"pointer": "/poolId", "detail": "This field is required.", "code": "required"}]
    return {
        "type": f"urn:boilerhouse:problem:{code}",
        "title": HTTPStatus(int(status)).phrase,
        "status": int(status),
        "detail": errors[0]["pointer"] + ": " + errors[0]["detail"] if errors else f"{WORDS[status]}.",
        "code": code,
        "requestId": BY_NAME["requestId"],
        "errors": errors,
    }


class _Examples:
    """Examples that follow from a schema and the names in it."""

    def __init__(self, components: Schema) -> None:
        self._components = components

    def of(self, schema: Schema, name: str = "", component: str = "") -> Any:
        own = COMPONENTS.get(component, {})
        if name and name in own:
            return own[name]
        if name in BY_NAME and not self._is_choice(schema):
            return BY_NAME[name]
        if "$ref" in schema:
            target = schema["$ref"].rpartition("/")[2]
            return self.of(self._components[target], "", target)
        if "allOf" in schema:
            return self.of(schema["allOf"][0], "", component)
        for choice in (*schema.get("oneOf", ()), *schema.get("anyOf", ())):
            if choice.get("type") != "null":
                return self.of(choice, name, component)
        kind = schema.get("type")
        kind = next((one for one in kind if one != "null"), None) if isinstance(kind, list) else kind
        if "enum" in schema:
            return schema["enum"][0]
        if "default" in schema:
            return schema["default"]
        if kind == "object":
            return {key: self.of(value, key, component) for key, value in schema.get("properties", {}).items()}
        if kind == "array":
            return [self.of(schema["items"], "", component)]
        formats = {"date-time": TIME, "uuid": UUID}
        plain = {"string": formats.get(schema.get("format", ""), "text"), "integer": 1, "number": 1.0, "boolean": True}
        return plain.get(str(kind), {})

    def _is_choice(self, schema: Schema) -> bool:
        target = self._components[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
        return "enum" in target or any(self._is_choice(one) for one in target.get("oneOf", ()) if one != target)
