"""The Python client against hostile servers. The stack tests use it with the product."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boilerhouse_client as bh
import pytest

from tests.python_clients import KINDS, make_client


class _Server:
    """Answers every request with one status, and records the requests."""

    def __init__(self, status: int, location: str = "") -> None:
        self.asked: list[str] = []
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_response(status)
                if location:
                    self.send_header("Location", location)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def internal():
    server = _Server(200)
    yield server
    server.stop()


@pytest.fixture(params=[301, 302, 303, 307, 308])
def redirecting(request, internal):
    server = _Server(request.param, f"{internal.url}/internal-only")
    yield server
    server.stop()


def test_a_container_does_not_send_its_caller_elsewhere(redirecting, internal):
    """The answer of a tenant's application cannot direct the client to another address."""
    endpoint = {"name": "http", "url": redirecting.url}
    answer = {"tenantId": "t", "containerId": "c", "poolId": "p", "generation": 1, "source": "warm"}
    claim = bh.Claim(bh.Client(redirecting.url, "key"), {**answer, "endpoints": [endpoint]})
    got = claim.request("GET", "/")
    assert (got.status_code // 100, got.headers["Location"]) == (3, f"{internal.url}/internal-only")
    assert internal.asked == []
    assert claim.request("GET", "/", follow_redirects=True).status_code == 200  # only who asks for it


def test_the_api_does_not_send_the_client_elsewhere(redirecting, internal):
    """A claim's secrets are sent only to the configured address."""
    client = bh.Client(redirecting.url, "key")
    with pytest.raises(bh.Unreachable, match="redirects to"):
        client.claim("t", "p", secrets={"TOKEN": "secret"})
    with pytest.raises(bh.Unreachable, match="redirects to"):
        client.tenant("t").status()
    assert internal.asked == []
    assert len(redirecting.asked) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_the_api_does_not_send_a_terminal_elsewhere(redirecting, internal, kind):
    client = make_client(kind, redirecting.url, "key")
    with pytest.raises(bh.Unreachable), client.tenant("t").commands.get("0" * 32).attach():
        pass
    client.close()
    assert internal.asked == []
    assert len(redirecting.asked) == 1
