"""Logs and traces follow one request from the web process through the worker to rclone and the sink."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.stack.conftest import eventually
from tests.stack.machines import Machine

STATE = "t/${tenantId}/"
SECRET = "tr4ced-secret"


@pytest.fixture
def spans() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A collector that speaks OTLP over HTTP: its URL, and what was sent to it."""
    found: list[dict[str, Any]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = ExportTraceServiceRequest()
            request.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        about = {a.key: a.value.string_value or a.value.int_value for a in span.attributes}
                        found.append(
                            {"name": span.name, "trace": span.trace_id, "id": span.span_id, "about": about}
                            | {"parent": span.parent_span_id, "words": str(span)}
                        )
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", found
    server.shutdown()


@pytest.mark.long
@pytest.mark.any_database
def test_a_claim_with_a_restore_is_one_trace_and_its_request_id_is_in_every_log(
    stack, tmp_path: Path, spans, sink_server
):
    url, found = spans
    machine = Machine(tmp_path / "machine")
    machine.environment |= {"BOILERHOUSE_TRACING": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": url}
    try:
        traced = machine.start()
        pool = traced.make_pool(sink=sink_server.json(STATE), warm=2, maxSize=3)
        claimed = traced.claim("ana", pool)
        traced.exec(claimed["containerId"], "seq 1 500 > /state/x")
        traced.release("ana")
        headers = {"X-Request-ID": "the-request", "traceparent": "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"}
        answer = traced.call(
            "POST", "tenants/ana/claim?timeoutMs=60000", {"poolId": pool, "secrets": {"T": SECRET}}, headers=headers
        )
        assert answer.status_code == 201, answer.text
        ours = bytes.fromhex("ab" * 16)
        wanted = {"HTTP POST", "task tenants.tasks.prepare", "claim restore", "claim provision", "rclone copy"}
        wanted |= {"claim survey", "claim verify", "claim decide", "docker GET /containers/{id}/json"}
        names = eventually(lambda: (n := {s["name"] for s in found if s["trace"] == ours}) >= wanted and n, 30)
        by_id = {s["id"]: s for s in found if s["trace"] == ours}
        for span in by_id.values():
            assert span["parent"] in by_id or span["parent"] == bytes.fromhex("cd" * 8), f"{span['name']} hangs loose"
        assert any(s["about"].get("http.route", "").endswith("/claim") for s in by_id.values()), names
        assert not any(SECRET in s["words"] for s in found)

        lines = [json.loads(line) for line in machine.log.read_text().splitlines() if line.startswith("{")]
        told = [line for line in lines if line.get("request_id") == "the-request"]
        (transfer,) = [line for line in told if line["event"] == "transfer ended"]
        assert (transfer["tenant"], transfer["generation"]) == ("ana", answer.json()["generation"])
        assert transfer["container"] == answer.json()["containerId"]
        assert any(line["event"] == "request" for line in told)
        events = traced.ok("GET", "events?tenantId=ana&type=sync.completed")["items"]
        assert SECRET not in machine.log.read_text()
        assert events
    finally:
        machine.lose()
