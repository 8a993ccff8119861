"""Postprocessing of the generated schema: names of path parameters, descriptions of statuses, headers, examples."""

from __future__ import annotations

import re
from typing import Any

from drf_spectacular.plumbing import get_lib_doc_excludes

from boilerhouse.api.schema_examples import BY_NAME, COMPONENTS, REQUESTS, TIME, UUID
from boilerhouse.api.serializers import ApiSerializer, camel
from boilerhouse.web.problems import document

Schema = dict[str, Any]

TAGS = {
    "workloads": "Descriptions of how to run one kind of container. Each change is a new version"
    " that rolls through its pools.",
    "pools": "Sets of warm containers of one workload.",
    "containers": "Containers of pools. Each serves one tenant in its lifetime.",
    "tenants": "Claim a container, work in it, release it.",
    "sync-specs": "What to copy between a pool's containers and a sink, and when.",
    "sync-runs": "Executions of sync specs.",
    "credentials": "Stored credentials for sinks. They can be written but not read.",
    "registry-credentials": "Stored credentials for image registries. They can be written but not read.",
    "notifications": "Whom to tell of what needs attention: webhooks, chats and e-mail.",
    "nodes": "Machines with containers: what each has, and whether it gets new containers.",
    "events": "Events, as a list and as streams (also the WebSocket `/ws/events`).",
    "audit": "The audit log.",
    "api-keys": "API keys.",
    "settings": "Settings that admins can change while Boilerhouse runs.",
    "stats": "Figures of the deployment.",
    "health": "Health checks.",
    "metrics": "Metrics for Prometheus.",
}
WORDS = {
    "200": "Done",
    "201": "Created",
    "202": "Accepted; the work continues",
    "204": "Done; no content",
    "206": "The part that `Range` names",
    "400": "The body is not valid JSON or contains a NUL character",
    "401": "The API key is missing, wrong, expired or revoked",
    "403": "The key's role does not allow this",
    "404": "Not found",
    "408": "The body did not arrive in time",
    "409": "Conflict with the current state",
    "412": "The object has changed since the `ETag` in `If-Match`",
    "413": "The body is larger than 1 MiB",
    "415": "The body is not `application/json`",
    "422": "Validation failed; `errors` says what is wrong and where",
    "429": "Too many requests with this key",
    "502": "A system outside Boilerhouse failed",
    "503": "Unavailable; try again",
    "504": "Timed out",
    "507": "No space is left on the container's disk",
}
TENANT_ID = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._@:-]{0,127}$"}
REQUEST_ID = {"description": "The request's id, as in the log.", "schema": {"type": "string"}}
RETRY_AFTER = {"description": "Seconds to wait before trying again.", "schema": {"type": "integer"}}
ETAG = {"description": "The version of the object, for `If-Match`.", "schema": {"type": "string"}}


def without_descriptions() -> list[type]:
    """Classes whose docstrings describe neither an operation nor an object of the API: drf-spectacular's and our base
    classes."""
    from boilerhouse.api.base import ApiView  # imports the URLs' views, which need this setting

    return [*get_lib_doc_excludes(), ApiView, ApiSerializer]  # type: ignore[no-untyped-call]


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
    "runCommandForTenant": {"tenantId": "$request.path.tenantId", "commandId": "$response.body#/commandId"},
    "runCommandInContainer": {"containerId": "$request.path.containerId", "commandId": "$response.body#/commandId"},
    "syncTenant": {"runId": "$response.body#/runs/0/id"},
    "listTenantBackups": {"tenantId": "$request.path.tenantId", "backupId": "$response.body#/items/0/id"},
}
"""The operations that return the ids used in other operations' paths."""


def _link(paths: Schema) -> None:
    operations = [(path, operation) for path, methods in paths.items() for operation in methods.values()]
    for _, source in operations:
        parameters = LINKS.get(source["operationId"], {})
        for path, target in operations:
            names = re.findall(r"\{(\w+)\}", path)
            if parameters and names and set(names) <= set(parameters) and target is not source:
                success = next(response for status, response in source["responses"].items() if status.startswith("2"))
                link = {"operationId": target["operationId"], "parameters": {name: parameters[name] for name in names}}
                success.setdefault("links", {})[target["operationId"]] = link


def _camel_path(path: str) -> str:
    return re.sub(r"\{(\w+)\}", lambda match: f"{{{camel(match[1])}}}", path)


def _finish_operation(operation: Schema, examples: _Examples, *, has_etag: bool) -> None:
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path":
            parameter["name"] = camel(parameter["name"])
            parameter["schema"] = dict(TENANT_ID) if parameter["name"] == "tenantId" else {"type": "string"}
            parameter["example"] = BY_NAME[parameter["name"]]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    is_optional = operation.pop("x-body-optional", False)
    if "requestBody" in operation:
        operation["requestBody"]["required"] = not is_optional
    if body is not None:
        body["example"] = REQUESTS[operation["operationId"]]
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
    detail = errors[0]["pointer"] + ": " + errors[0]["detail"] if errors else f"{WORDS[status]}."
    return document(int(status), code, detail, BY_NAME["requestId"], errors)


class _Examples:
    """Examples derived from a schema and its property names."""

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
        kind = (
            next((alternative for alternative in kind if alternative != "null"), None)
            if isinstance(kind, list)
            else kind
        )
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
        return "enum" in target or any(
            self._is_choice(branch) for branch in target.get("oneOf", ()) if branch != target
        )
