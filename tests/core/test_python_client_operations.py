"""Each operation of docs/openapi.json has a method in both Python clients, and the method asks as the document says."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boilerhouse_client as bh
import jsonschema
import pytest

from tests.python_clients import KINDS, make_client

DOCUMENT = json.loads((Path(__file__).resolve().parents[2] / "docs" / "openapi.json").read_text())
METHODS = ("get", "put", "post", "delete", "patch")
ROUTES = [
    (method.upper(), re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path))), operation)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
    if method in METHODS
]
OPERATIONS = {operation["operationId"]: operation for _, _, operation in ROUTES}
STREAMS = {
    "output": [("exit", {"exitCode": 0, "signal": None, "timedOut": False})],
    "watch": [("ready", {})],
    "stream": [("message", {"id": 7, "type": "pool.created", "payload": {}, "timestamp": "2026-11-28T12:00:00Z"})],
}


class Documented:
    """Answers with the document's examples, and records the operations and what was wrong with their requests."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.faults: list[str] = []
        documented = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                documented.answer(self)

            do_POST = do_PUT = do_DELETE = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        url, body = urlsplit(handler.path), handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        operation = _operation_of(handler.command, url.path)
        if operation is None:
            self.faults.append(f"{handler.command} {url.path} is no operation")
            handler.send_error(404)
            return
        self.asked.append(operation["operationId"])
        self.faults += [f"{operation['operationId']}: {fault}" for fault in _faults(operation, url.query, body)]
        status, headers, content = _documented_answer(operation, url.path, b'"base64"' in body)
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        if status != 204:
            handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)


def _operation_of(method: str, path: str) -> dict[str, Any] | None:
    """The operation with the fewest parameters in its path."""
    matching = [route for route in ROUTES if route[0] == method and route[1].fullmatch(path)]
    return min(matching, key=lambda route: route[1].pattern.count("[^/]+"))[2] if matching else None


def _faults(operation: dict[str, Any], query: str, body: bytes) -> Iterator[str]:
    given = set(parse_qs(query, keep_blank_values=True))
    declared = {one["name"]: one for one in operation.get("parameters", []) if one["in"] == "query"}
    yield from (f"?{name} is not documented" for name in given - set(declared))
    yield from (f"?{name} is missing" for name, one in declared.items() if one.get("required") and name not in given)
    request = operation.get("requestBody", {})
    schema = request.get("content", {}).get("application/json", {}).get("schema")
    if schema is None:
        if body and not request:
            yield "has a body"
    elif body:
        whole = {**schema, "components": DOCUMENT["components"]}
        yield from (error.message for error in jsonschema.Draft202012Validator(whole).iter_errors(json.loads(body)))
    elif request.get("required"):
        yield "has no body"


def _documented_answer(operation: dict[str, Any], path: str, is_base64: bool) -> tuple[int, dict[str, str], bytes]:
    status, response = min((int(code), one) for code, one in operation["responses"].items() if code[0] == "2")
    for kind, media in response.get("content", {}).items():
        headers = {"Content-Type": kind, "ETag": '"1"'}
        if kind == "application/json":
            output = {name: "b3V0" for name in ("stdout", "stderr") if is_base64 and name in media["example"]}
            return status, headers, json.dumps({**media["example"], **output}).encode()
        if kind == "text/event-stream":
            events = STREAMS[path.rpartition("/")[2]]
            return status, headers, "".join(f"event: {n}\ndata: {json.dumps(d)}\n\n" for n, d in events).encode()
        return status, headers, b"some\n"
    return status, {}, b""


# The method of each operation ---------------------------------------------------------------------------------

Call = Callable[[Any], Any]


def first(items: Any) -> Any:
    try:
        return next(items)
    finally:
        items.close()


def of_collection(attribute: str, one: str, but: tuple[str, ...] = ()) -> dict[str, Call]:
    """``one``: how the operations' names end. ``but``: what the API does not have for this kind."""
    calls: dict[str, Call] = {
        f"list{one}s": lambda c: list(getattr(c, attribute).list()),
        f"create{one}": lambda c: getattr(c, attribute).create(_body_of(f"create{one}")),
        f"get{one}": lambda c: getattr(c, attribute).get("x"),
        f"replace{one}": lambda c: getattr(c, attribute).replace("x", _body_of(f"replace{one}"), '"1"'),
        f"delete{one}": lambda c: getattr(c, attribute).delete("x"),
    }
    return {name: call for name, call in calls.items() if name.removesuffix(one) not in but}


def _body_of(operation: str) -> Any:
    return OPERATIONS[operation]["requestBody"]["content"]["application/json"]["example"]


def of_held(word: str, held: Call, commands: str) -> dict[str, Call]:
    """``word``: Tenant or Container; ``commands``: how the names of what is done with commands end."""

    def command(c: Any) -> Any:
        return held(c).commands.get("x")

    return {
        f"get{word}Logs": lambda c: held(c).logs(5),
        f"read{word}File": lambda c: held(c).files.read("f"),
        f"write{word}File": lambda c: held(c).files.write("f", b"data", mode=0o600, parents=True),
        f"remove{word}File": lambda c: held(c).files.remove("f", recursive=True),
        f"list{word}Files": lambda c: list(held(c).files.list("d", depth=2)),
        f"show{word}File": lambda c: held(c).files.stat("f"),
        f"make{word}Directory": lambda c: held(c).files.mkdir("d"),
        f"move{word}File": lambda c: held(c).files.move("f", "g", overwrite=True),
        f"watch{word}Files": lambda c: first(held(c).files.watch("d", recursive=True)),
        f"read{word}Archive": lambda c: list(held(c).files.read_archive("d")),
        f"write{word}Archive": lambda c: held(c).files.write_archive("d", b"tar", parents=True),
        f"sign{word}FileLink": lambda c: held(c).files.link("f"),
        f"listCommands{commands}": lambda c: held(c).commands.list(),
        f"getCommand{commands}": lambda c: command(c).status(),
        f"killCommand{commands}": lambda c: command(c).kill(),
        f"followCommand{commands}": lambda c: list(command(c).output()),
        f"writeToCommand{commands}": lambda c: (command(c).write("in"), command(c).close_input()),
        f"signalCommand{commands}": lambda c: command(c).signal("SIGTERM"),
        f"resizeCommand{commands}": lambda c: command(c).resize(80, 24),
    }


CALLS: dict[str, Call] = {
    **of_collection("workloads", "Workload"),
    "refreshWorkload": lambda c: c.workloads.refresh("x"),
    "listWorkloadVersions": lambda c: list(c.workloads.versions("x")),
    **of_collection("pools", "Pool"),
    "scalePool": lambda c: c.pools.scale("x", 3),
    "pausePool": lambda c: c.pools.pause("x"),
    "resumePool": lambda c: c.pools.resume("x"),
    "drainPool": lambda c: c.pools.drain("x"),
    "getPoolUsage": lambda c: list(c.pools.usage("x")),
    "listPoolContainers": lambda c: list(c.pools.containers("x", state=["idle"], tenantId="alice")),
    **of_collection("credentials", "Credential"),
    **of_collection("registry_credentials", "RegistryCredential"),
    **of_collection("sync_specs", "SyncSpec"),
    "triggerSyncSpec": lambda c: c.sync_specs.trigger("x", "both", tenant_id="alice"),
    "probeSyncSpec": lambda c: c.sync_specs.probe("x"),
    "listSinkProbes": lambda c: list(c.sync_specs.probes("x")),
    "getSyncSpecStatus": lambda c: c.sync_specs.status("x"),
    **of_collection("sync_runs", "SyncRun", but=("create", "replace", "delete")),
    "cancelSyncRun": lambda c: c.sync_runs.cancel("x"),
    **of_collection("notifications", "Notification"),
    "listCauses": lambda c: list(c.causes.list()),
    "muteCause": lambda c: c.causes.mute("x", for_s=3600),
    "unmuteCause": lambda c: c.causes.unmute("x"),
    "testNotification": lambda c: c.notifications.test("x"),
    "listNotificationDeliveries": lambda c: list(c.notifications.deliveries("x", state="failed")),
    "resendNotificationDelivery": lambda c: c.notifications.resend("x", "y"),
    **of_collection("nodes", "Node", but=("create", "delete")),
    "cordonNode": lambda c: c.nodes.cordon("x", "a new disk"),
    "uncordonNode": lambda c: c.nodes.uncordon("x"),
    "drainNode": lambda c: c.nodes.drain("x", after_s=600, reason="a new disk"),
    "declareNodeLost": lambda c: c.nodes.declare_lost("x", is_off=True, reason="its mainboard is dead"),
    "joinNode": lambda c: c.nodes.join(_body_of("joinNode")),
    "listNodeTokens": lambda c: list(c.node_tokens.list()),
    "createNodeToken": lambda c: c.node_tokens.create(ttl_s=3600),
    "revokeNodeToken": lambda c: c.node_tokens.revoke("x"),
    **of_collection("api_keys", "ApiKey", but=("get", "replace", "delete")),
    "rotateApiKey": lambda c: c.api_keys.rotate("x", overlap_s=60, expires_at="2030-01-01T00:00:00Z"),
    "revokeApiKey": lambda c: c.api_keys.revoke("x"),
    "listAudit": lambda c: list(c.audit.list(actor="key ci")),
    **of_collection("containers", "Container", but=("create", "replace", "delete")),
    "removeContainer": lambda c: c.containers.remove("x", discard=True),
    "execInContainer": lambda c: c.container("x").exec(["id"], stdin="in"),
    "runCommandInContainer": lambda c: c.container("x").commands.run(["id"], cwd="/", env={"A": "b"}, stdin="in"),
    **of_held("Container", lambda c: c.container("x"), "InContainer"),
    "listTenants": lambda c: list(c.tenants(poolId="notes", state="pending")),
    "claimContainer": lambda c: c.claim("alice", "notes", config={"a": 1}, secrets={"T": "s"}, command="true"),
    "releaseContainer": lambda c: c.tenant("alice").release(discard=True),
    "getTenantStatus": lambda c: c.tenant("alice").status(),
    "syncTenant": lambda c: c.tenant("alice").sync("inward"),
    "heartbeat": lambda c: c.tenant("alice").heartbeat(),
    "setTenantTtl": lambda c: c.tenant("alice").set_ttl(3600),
    "signPortLink": lambda c: c.tenant("t").port_link(8080),
    "getTenantNetwork": lambda c: c.tenant("alice").network(),
    "setTenantNetwork": lambda c: c.tenant("alice").set_network({"mode": "none"}, '"1"'),
    "execForTenant": lambda c: c.tenant("alice").exec(["id"]),
    "runCommandForTenant": lambda c: c.tenant("alice").commands.run("id; pwd", timeout_s=5),
    **of_held("Tenant", lambda c: c.tenant("alice"), "OfTenant"),
    "readFileByLink": lambda c: c.read_link(f"{c.url}/api/v1/file-links/t"),
    "writeFileByLink": lambda c: c.write_link(f"{c.url}/api/v1/file-links/t", b"data"),
    "eraseTenantState": lambda c: c.tenant("alice").erase_state(),
    "listSavedFiles": lambda c: list(c.tenant("alice").saved_files.list("/state")),
    "readSavedFile": lambda c: c.tenant("alice").saved_files.read("/state/f"),
    "forgetTenantState": lambda c: c.tenant("alice").forget_state(),
    "listTenantRuns": lambda c: list(c.tenant("alice").runs(state="failed", direction="inward")),
    "listTenantBackups": lambda c: list(c.tenant("alice").backups(specId="s")),
    "restoreTenantBackup": lambda c: c.tenant("alice").restore_backup("x"),
    "listUsage": lambda c: list(c.usage(month="2026-11", by="day")),
    "listEvents": lambda c: list(c.past_events(type=["pool.created"], poolId="notes")),
    "streamEvents": lambda c: first(c.events(after=3, tenantId="alice")),
    "getSettings": lambda c: c.settings(),
    "replaceSettings": lambda c: c.replace_settings(_body_of("replaceSettings"), '"1"'),
    "getStats": lambda c: c.stats(),
    "getHealth": lambda c: c.health(),
    "getReadiness": lambda c: c.ready(),
    "getMetrics": lambda c: c.metrics(),
}


@pytest.fixture(scope="module")
def server():
    running = Documented()
    yield running
    running.stop()


@pytest.fixture(scope="module", params=KINDS)
def client(request, server):
    made = make_client(request.param, server.url, "key", retries=0, patience_s=0)
    yield made
    made.close()


def test_each_operation_has_a_method_and_no_method_is_of_none():
    assert set(CALLS) == set(OPERATIONS)


@pytest.mark.parametrize("operation", sorted(CALLS))
def test_a_method_asks_as_the_document_says(operation, client, server):
    server.asked.clear()
    server.faults.clear()
    CALLS[operation](client)
    assert server.faults == []
    assert set(server.asked) == {operation}


def test_a_change_of_settings_is_conditional_and_keeps_the_rest(client, server):
    server.asked.clear()
    client.update_settings(allowRoot=True)
    assert (server.asked, server.faults) == (["getSettings", "replaceSettings"], [])


def test_the_package_is_typed():
    assert (Path(bh.__file__).parent / "py.typed").is_file()
