"""HTTP below the views: sizes, methods, malformed requests, and threads that a hung sink must not block
(hazards.md#a9)."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from urllib.parse import urlsplit

import pytest
import requests

from tests.stack.conftest import eventually

pytestmark = [pytest.mark.stack, pytest.mark.any_database]


def raw(stack, text: bytes) -> bytes:
    """The server's answer to these bytes."""
    parts = urlsplit(stack.base)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as opened:
        found = b""
        with contextlib.suppress(OSError):  # it may have hung up on us already
            opened.sendall(text)
            opened.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while chunk := opened.recv(65536):
                found += chunk
        return found


def test_a_body_that_is_too_large_is_a_problem_document(stack):
    for size, status in ((1024 * 1024 + 1, 413), (20 * 1024 * 1024, 413), (1024 * 1024, 400)):
        answer = requests.post(
            f"{stack.base}/api/v1/pools", data=b"x" * size, timeout=30,
            headers={"Authorization": f"Bearer {stack.key}", "Content-Type": "application/json", "X-Request-ID": "big-1"},
        )  # fmt: skip
        assert answer.status_code == status
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.headers["X-Request-ID"] == answer.json()["requestId"] == "big-1"


def test_a_body_in_chunks_counts_too(stack):
    def endless():
        for _ in range(300):
            yield b"x" * 8192

    answer = requests.post(
        f"{stack.base}/api/v1/pools", data=endless(), timeout=30,
        headers={"Authorization": f"Bearer {stack.key}", "Content-Type": "application/json"},
    )  # fmt: skip
    assert answer.status_code == 413


def test_methods(stack):
    for method, path in (
        ("PATCH", "pools"),
        ("DELETE", "pools"),
        ("PUT", "events"),
        ("OPTIONS", "pools"),
        ("TRACE", "pools"),
    ):
        answer = stack.call(method, path, {})
        assert answer.status_code == 405, (method, path)
        assert answer.json()["code"] == "method_not_allowed"
        assert "GET" in answer.headers["Allow"]
    answer = stack.call("HEAD", "pools")
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize(
    "text",
    [
        b"GET /api/v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -5\r\n\r\n",
        b"GET /api/v1/\x00 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /api/v1/pools HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\nContent-Length: 20\r\n\r\n{}",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 3000 + b"\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
    ],
)
def test_garbage_ends_its_connection_and_nothing_else(stack, text):
    answered = raw(stack, text)
    assert not answered or b" 50" not in answered.split(b"\r\n", 1)[0]
    assert requests.get(f"{stack.base}/api/v1/health", timeout=5).status_code == 200


@pytest.fixture
def blackhole():
    """A sink that accepts connections and never answers."""
    server = socket.create_server(("127.0.0.1", 0), backlog=200)
    yield f"http://127.0.0.1:{server.getsockname()[1]}"
    server.close()


def test_a_sink_that_hangs_keeps_claims_waiting_and_nothing_else(stack, blackhole):
    """Four claims with a hung sink used to block everything."""
    sink = {
        "type": "s3", "bucket": "bucket", "region": "r", "prefix": "hang/${tenantId}/", "endpoint": blackhole,
        "accessKeyId": "a", "secretAccessKey": "s",
    }  # fmt: skip
    pool = stack.make_pool(warm=2, maxSize=4)
    mapping = {"containerPath": "/state", "sinkPath": "s/", "direction": "bidirectional", "mode": "sync"}
    spec = {"poolId": pool, "mappings": [mapping], "sink": sink, "policy": {"onClaim": True}}
    probing = threading.Thread(target=stack.ok, args=("POST", "sync-specs", spec, 201))
    probing.start()
    began = time.monotonic()
    claims = []

    def claim(number: int) -> None:
        claims.append(stack.call("POST", f"tenants/hang-{number}/claim?timeoutMs=4000", {"poolId": pool}).status_code)

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(8)]
    eventually(lambda: stack.ok("GET", f"sync-specs?poolId={pool}")["items"])
    for thread in threads:
        thread.start()
    slowest = 0.0
    until = time.monotonic() + 3
    while time.monotonic() < until:
        began = time.monotonic()
        stack.ok("GET", "pools")
        slowest = max(slowest, time.monotonic() - began)
    for thread in (*threads, probing):
        thread.join()
    assert stack.ok("GET", f"sync-specs?poolId={pool}")["items"][0]["sinkHealth"]["code"] == "unreachable"
    assert slowest < 3.0, "less than a claim waits"
    assert time.monotonic() - began < 60, "whoever makes a spec does not wait for ever"
    assert len(claims) == 8
    assert all(status in (502, 503, 504) for status in claims), claims
    stack.drop_pool(pool)


def test_the_docs_page_draws_the_schema_under_the_strict_policy(stack):
    from playwright.sync_api import sync_playwright

    said = []
    paths = requests.get(f"{stack.base}/api/v1/openapi.json", timeout=10).json()["paths"]
    documented = {operation["operationId"] for methods in paths.values() for operation in methods.values()}
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(f"{stack.base}/api/v1/docs#/tenants/claimContainer")
        page.wait_for_selector("#operations-tenants-claimContainer", timeout=20_000)
        page.evaluate("scrollTo(0, 0)")
        drawn: set[str] = set()
        deadline = time.monotonic() + 60
        while len(drawn) < len(documented) and time.monotonic() < deadline:  # it draws what is near the view
            drawn |= set(page.eval_on_selector_all(".opblock", "all => all.map((one) => one.id.split('-').pop())"))
            page.evaluate("scrollBy(0, innerHeight / 2)")
            page.wait_for_timeout(100)
        browser.close()
    assert drawn == documented
    assert not said, said


def test_request_ids_go_from_the_request_to_events_and_audit(stack):
    answer = stack.call(
        "POST", "workloads", {"id": "rid", "name": "rid", "image": "i"}, headers={"X-Request-ID": "trace-77"}
    )
    assert answer.headers["X-Request-ID"] == "trace-77"
    assert stack.ok("GET", "audit?requestId=trace-77")["items"][0]["objectId"] == "rid"
    assert stack.events("workload.updated")[0]["payload"]["requestId"] == "trace-77"
    assert '"request_id": "trace-77"' in stack.log.read_text()
    stack.ok("DELETE", "workloads/rid", status=204)
    assert json.loads(stack.call("GET", "nothing").text)["code"] == "not_found"
