"""The API call that does the same as an action of a page, as curl and as Python with our client."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from django.conf import settings
from django.http import HttpRequest

KEY = "BOILERHOUSE_KEY"
"""The environment variable that has the API key in both."""
TENANT = "alice"
"""The tenant of examples."""


@dataclass(frozen=True, slots=True)
class ApiCall:
    """A call: method, path below ``/api/v1/``, body, and the statements of the client that make it."""

    method: str
    path: str
    python: str
    body: Any = None


@dataclass(frozen=True, slots=True)
class Spelled:
    """Calls as text that can be pasted."""

    curl: str
    python: str


def spell(request: HttpRequest, calls: Sequence[ApiCall]) -> Spelled:
    """The calls with this deployment's address."""
    base = f"{request.scheme}://{request.get_host()}{settings.BOILERHOUSE_BASE_PATH}"
    statements = "\n".join(call.python for call in calls)
    head = f'import os\nfrom boilerhouse_client import Client\n\nclient = Client("{base}", os.environ["{KEY}"])'
    return Spelled("\n".join(_curl(base, call) for call in calls), f"{head}\n{statements}")


def _curl(base: str, call: ApiCall) -> str:
    lines = [f"curl -X {call.method} {shlex.quote(f'{base}/api/v1/{call.path}')}", f'-H "Authorization: Bearer ${KEY}"']
    if call.body is not None:
        lines += ['-H "Content-Type: application/json"', f"-d {shlex.quote(json.dumps(call.body, ensure_ascii=False))}"]
    return " \\\n  ".join(lines)


def stats() -> ApiCall:
    return ApiCall("GET", "stats", "print(client.stats())")


def claim(tenant_id: str, pool_id: str, config: dict[str, Any] | None) -> ApiCall:
    body: dict[str, Any] = {"poolId": pool_id}
    more = ""
    if config:
        body["config"] = config
        more = f", config={config!r}"
    return ApiCall(
        "POST", f"tenants/{_part(tenant_id)}/claim", f"claim = client.claim({tenant_id!r}, {pool_id!r}{more})", body
    )


def unmute(cause_id: str) -> ApiCall:
    return ApiCall("DELETE", f"causes/{cause_id}/mute", f"client.causes.unmute({cause_id!r})")


# The call of each action that asks, by the name of its URL -----------------------------------------------------


def _part(text: str) -> str:
    return quote(text, safe="")


def _act(collection: str, attribute: str, id: str, verb: str, body: Any = None) -> ApiCall:
    more = f", {body!r}" if body is not None else ""
    return ApiCall("POST", f"{collection}/{_part(id)}/{verb}", f"client.{attribute}.act({id!r}, {verb!r}{more})", body)


def _delete(collection: str, attribute: str, id: str, *, force: bool = False) -> ApiCall:
    query, more = ("?force=true", ", force=True") if force else ("", "")
    path = f"{collection}/{_part(id)}{query}"
    return ApiCall("DELETE", path, f"client.{attribute}.delete({id!r}{more})")


def _release(tenant_id: str, *, discard: bool = False) -> ApiCall:
    body, more = ({"discard": True}, "discard=True") if discard else ({}, "")
    path = f"tenants/{_part(tenant_id)}/release"
    return ApiCall("POST", path, f"client.tenant({tenant_id!r}).release({more})", body)


def _remove(fields: Mapping[str, list[str]], container_id: object) -> list[ApiCall]:
    return [_delete("containers", "containers", str(container_id))]


def _remove_many(fields: Mapping[str, list[str]], **_: object) -> list[ApiCall]:
    return [_delete("containers", "containers", id) for id in fields.get("id", [])]


def _erase(fields: Mapping[str, list[str]], tenant_id: str) -> list[ApiCall]:
    return [ApiCall("DELETE", f"tenants/{_part(tenant_id)}/state", f"client.tenant({tenant_id!r}).erase_state()")]


def _forget(fields: Mapping[str, list[str]], tenant_id: str) -> list[ApiCall]:
    path = f"tenants/{_part(tenant_id)}/forget-state"
    return [ApiCall("POST", path, f"client.tenant({tenant_id!r}).forget_state()")]


def _put_back(fields: Mapping[str, list[str]], tenant_id: str, backup_id: object) -> list[ApiCall]:
    path = f"tenants/{_part(tenant_id)}/backups/{backup_id}/restore"
    return [ApiCall("POST", path, f"client.tenant({tenant_id!r}).restore_backup({str(backup_id)!r})")]


def _declare_lost(fields: Mapping[str, list[str]], node_id: str) -> list[ApiCall]:
    body = {"isOff": True}
    return [
        ApiCall("POST", f"nodes/{_part(node_id)}/lost", f"client.nodes.declare_lost({node_id!r}, is_off=True)", body)
    ]


def _remove_file(fields: Mapping[str, list[str]], tenant_id: str) -> list[ApiCall]:
    """A directory goes with its content; the path of the form is percent-encoded once."""
    [name] = fields.get("path", [""])
    path = f"tenants/{_part(tenant_id)}/files?path={_part(name)}&pathEncoding=percent&recursive=true"
    return [ApiCall("DELETE", path, f'client.call("DELETE", {path!r})')]


Calls = Callable[..., list[ApiCall]]
CALLS: dict[str, Calls] = {
    "container-remove": _remove,
    "node-drain": lambda _, node_id: [
        ApiCall("POST", f"nodes/{_part(node_id)}/drain", f"client.nodes.drain({node_id!r})")
    ],
    "node-lost": _declare_lost,
    "pool-drain": lambda _, pool_id: [_act("pools", "pools", pool_id, "drain")],
    "pool-delete": lambda _, pool_id: [_delete("pools", "pools", pool_id, force=True)],
    "containers-remove": _remove_many,
    "tenant-release": lambda _, tenant_id: [_release(tenant_id)],
    "tenant-discard": lambda _, tenant_id: [_release(tenant_id, discard=True)],
    "tenant-erase": _erase,
    "tenant-forget": _forget,
    "tenant-file-remove": _remove_file,
    "backup-put-back": _put_back,
    "delete-spec": lambda _, spec_id: [_delete("sync-specs", "sync_specs", spec_id, force=True)],
    "sync-trigger": lambda _, spec_id: [
        _act("sync-specs", "sync_specs", spec_id, "trigger", {"direction": "outward"})
    ],
    "delete-workload": lambda _, workload_id: [_delete("workloads", "workloads", workload_id)],
    "workload-refresh": lambda _, workload_id: [_act("workloads", "workloads", workload_id, "refresh")],
    "revoke-key": lambda _, key_id: [_delete("api-keys", "api_keys", key_id)],
    "delete-credential": lambda _, credential_id: [_delete("credentials", "credentials", credential_id)],
    "delete-notification": lambda _, notification_id: [_delete("notifications", "notifications", notification_id)],
    "delete-registry-credential": lambda _, registry_credential_id: [
        _delete("registry-credentials", "registry_credentials", registry_credential_id)
    ],
}  # fmt: skip
"""Each takes the values that the confirmation submits, and the URL's arguments."""


def of_action(request: HttpRequest, fields: Sequence[tuple[str, str]]) -> Spelled | None:
    """The calls of the action at the request's URL; None if the API has none."""
    match = request.resolver_match
    if match is None or match.url_name not in CALLS:
        return None
    values: dict[str, list[str]] = {}
    for name, value in fields:
        values.setdefault(name, []).append(value)
    calls = CALLS[match.url_name](values, **match.kwargs)
    return spell(request, calls) if calls else None
