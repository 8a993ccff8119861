"""A sink's endpoint, or its answers, cannot direct requests to this machine or to a cloud's metadata service."""

from __future__ import annotations

import ipaddress
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pools.spec import Owner
from syncing import errors, rclone
from syncing.jail import Jail
from syncing.sinks import CLAIM_DEADLINE_S, RUN_DEADLINE_S, AzureBlobSink, GcsSink, S3Sink, Sink, WebDavSink, outbound
from tests import google
from tests.make import API_MAPPING, API_SINK, make_pool

pytestmark = [pytest.mark.any_database, pytest.mark.slow]

UID = 234_572
MINE = {**API_MAPPING, "sinkPath": "t/${tenantId}/"}


class _Server:
    """Answers every request with ``answer``, and records the requests."""

    def __init__(
        self, status: int = 200, headers: dict[str, str] | None = None, body: bytes = b"INTERNAL-ONLY"
    ) -> None:
        self.asked: list[str] = []
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65537)
                if not self.raw_requestline or not self.parse_request():
                    self.close_connection = True
                    return
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                asked.append(f"{self.command} {self.path}")
                self.send_response(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def internal():
    """A service on this machine that is no sink."""
    server = _Server()
    yield server
    server.stop()


GOOGLE_KEY = google.private_key()


def sinks_at(endpoint: str) -> list[Sink]:
    keys = {"access_key_id": "AKIDTEST", "secret_access_key": "test-secret"}
    return [
        WebDavSink(endpoint),
        S3Sink("bucket", "us-east-1", "", endpoint, **keys),
        AzureBlobSink("tests", "states", "", endpoint, "a2V5IG9mIG5vIGFjY291bnQ="),
        GcsSink("states", "", endpoint, "a@b", "key", GOOGLE_KEY),
    ]


def ask(sink: Sink) -> None:
    sink.has_objects("t/one", CLAIM_DEADLINE_S)


def get(sink: Sink) -> None:
    sink.get("t/one", RUN_DEADLINE_S)


def put(sink: Sink) -> None:
    sink.put("t/one", b"1")


@pytest.fixture
def transfer(tmp_path, data_dir):
    """Restore from a sink, or save to it, with rclone in its sandbox."""
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "own").write_bytes(b"own")

    def run(sink: Sink, arguments: list[str], *, writable: bool) -> None:
        with (tmp_path / "lock").open("w") as lock:
            rclone.run(arguments, sink, Jail(volume, Owner(UID, UID), writable), lock.fileno())

    def restore(sink: Sink) -> None:
        run(sink, rclone.download(sink, "t/one", []), writable=True)

    def save(sink: Sink) -> None:
        backup = ".boilerhouse-trash/test"
        run(sink, rclone.upload(sink, "t/one", [], deletes=False, inside="", backup=backup), writable=False)

    run.restore, run.save, run.volume = restore, save, volume
    return run


SPELLINGS = [
    "http://127.0.0.1:{port}", "http://localhost:{port}", "http://LOCALHOST.:{port}", "http://127.1:{port}",
    "http://127.9.9.9:{port}", "http://2130706433:{port}", "http://0x7f000001:{port}", "http://0:{port}",
    "http://0.0.0.0:{port}", "http://[::1]:{port}", "http://[::]:{port}", "http://[::ffff:127.0.0.1]:{port}",
    "http://[64:ff9b::7f00:1]:{port}", "http://[2002:7f00:1::]:{port}",
    "http://169.254.169.254", "http://[::ffff:169.254.169.254]", "http://[fe80::1]", "http://[fd00:ec2::254]",
    "http://2852039166", "http://100.100.100.200", "http://192.0.0.192", "http://255.255.255.255",
]  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_sink_is_at_this_machine_or_a_clouds_metadata(settings, internal, transfer, spelling):
    """Decided by the resolved address, however it is written; for every client and transfer."""
    settings.BOILERHOUSE_ALLOWED_SINK_HOSTS = []
    for sink in sinks_at(spelling.format(port=internal.port)):
        for attempt in (ask, get, put, transfer.restore, transfer.save):
            with pytest.raises(errors.SyncFailed) as raised:
                attempt(sink)
            assert isinstance(raised.value, errors.SinkClosed | errors.SinkUnreachable), raised.value
            assert "INTERNAL-ONLY" not in raised.value.detail
    assert internal.asked == []


@pytest.mark.parametrize("address", ["fd00:ec2::254", "fd20:ce::254", "fd00:c1::a9fe:a9fe"])
def test_no_sink_is_at_a_clouds_metadata_by_ipv6(settings, address):
    """Also for clouds whose metadata service has a private address, which sinks may otherwise use."""
    settings.BOILERHOUSE_ALLOWED_SINK_HOSTS = []
    assert outbound.is_closed("sink.example", 80, address)
    assert not outbound.is_closed("sink.example", 80, "fd00:c2::1")


def test_what_the_deployment_allows_is_one_host_and_port(settings, internal, transfer, data_dir):
    """An address with its port, a name, a network; and the embedded S3 by itself."""
    endpoint = f"http://127.0.0.1:{internal.port}"
    webdav, *others = sinks_at(endpoint)
    for allowed in ([f"127.0.0.1:{internal.port + 1}"], ["127.0.0.2"], ["10.0.0.0/8"]):
        settings.BOILERHOUSE_ALLOWED_SINK_HOSTS = allowed
        with pytest.raises(errors.SinkClosed, match=f"add 127.0.0.1:{internal.port} to BOILERHOUSE_ALLOWED_SINK_HOSTS"):
            ask(webdav)
        for other in others:
            with pytest.raises(errors.SinkClosed):
                ask(other)
    assert internal.asked == []
    for allowed in ([f"127.0.0.1:{internal.port}"], ["127.0.0.1"], ["127.0.0.0/8"]):
        settings.BOILERHOUSE_ALLOWED_SINK_HOSTS = allowed
        assert outbound.reach(webdav).ends == {("127.0.0.1", internal.port)}
        get(webdav)
    settings.BOILERHOUSE_ALLOWED_SINK_HOSTS = ["localhost"]
    get(sinks_at(endpoint.replace("127.0.0.1", "localhost"))[0])
    with pytest.raises(errors.SinkClosed):
        get(webdav)
    settings.BOILERHOUSE_ALLOWED_SINK_HOSTS = []
    (data_dir / outbound.EMBEDDED_PORT).write_text(str(internal.port))
    get(webdav)


def test_private_networks_stay_open():
    """Self-hosted sinks have such addresses."""
    for address in ("10.0.0.1", "172.16.5.4", "192.168.1.1", "100.64.0.1", "fd12:3456::1", "8.8.8.8", "2606:4700::1"):
        assert not outbound.is_closed(address, 443, address)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.9.9.9", "[::1]"])
def test_no_redirect_leads_a_client_or_a_transfer_elsewhere(settings, internal, transfer, status, host):
    """The sink is allowed, but a redirect is not followed, even to an allowed sink."""
    settings.BOILERHOUSE_ALLOWED_SINK_HOSTS = ["127.0.0.0/8", "localhost", "::1"]
    hostile = _Server(status, {"Location": f"http://{host}:{internal.port}/latest/meta-data/"}, b"")
    try:
        for sink in sinks_at(f"http://127.0.0.1:{hostile.port}"):
            for attempt in (ask, get, put, transfer.restore, transfer.save):
                with pytest.raises(errors.SyncFailed):
                    attempt(sink)
            assert hostile.asked
    finally:
        hostile.stop()
    assert internal.asked == []
    assert {path.name for path in transfer.volume.iterdir()} == {"own"}


def test_a_transfer_that_was_led_elsewhere_says_where(settings, internal, transfer):
    """The error tells an operator what is wrong with the endpoint."""
    for host, words in (("127.9.9.9", "127.9.9.9"), ("elsewhere.test", "to another name")):
        hostile = _Server(302, {"Location": f"http://{host}:{internal.port}/"}, b"")
        try:
            with pytest.raises(errors.SinkRedirects, match=words):
                transfer.restore(WebDavSink(f"http://127.0.0.1:{hostile.port}"))
        finally:
            hostile.stop()


def test_a_name_that_means_something_else_the_second_time_is_asked_once(settings, internal, transfer, monkeypatch):
    """DNS rebinding: the checked address is the one connected to; the resolver returns public addresses, then ours."""
    settings.BOILERHOUSE_ALLOWED_SINK_HOSTS = []
    resolve, answers = socket.getaddrinfo, []

    def rebinding(host, *rest, **more):
        if host == "rebind.test":
            answers.append("127.0.0.1" if answers else "127.255.255.254")
            host = answers[-1]
        return resolve(host, *rest, **more)

    monkeypatch.setattr(outbound, "_CLOSED", (ipaddress.ip_network("127.0.0.1/32"),))
    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    for sink in sinks_at(f"http://rebind.test:{internal.port}"):
        for attempt in (get, transfer.restore):
            answers.clear()
            with pytest.raises(errors.SyncFailed):
                attempt(sink)
    assert internal.asked == []


def test_a_probe_tells_nothing_of_what_answers(call, settings, internal):
    """The answer is ok or the reason, never the text of a server that is no sink."""
    settings.BOILERHOUSE_ALLOWED_SINK_HOSTS = [f"127.0.0.1:{internal.port}"]
    endpoint = {"endpoint": f"http://127.0.0.1:{internal.port}"}
    azure = {"type": "azureblob", "account": "tests", "container": "states", "accountKey": "a2V5IG9mIG5vIGFjY291bnQ="}
    gcs = {"type": "gcs", "bucket": "others", "serviceAccountKey": google.ServiceAccount().document()}
    for kind, sink in (("http", {"type": "http"}), ("s3", API_SINK), ("azureblob", azure), ("gcs", gcs)):
        body = {"id": kind, "poolId": make_pool().pk, "mappings": [MINE], "sink": {**sink, **endpoint}, "policy": {}}
        made = call("POST", "sync-specs", body)
        assert made.status_code == 201, made.content
        assert made.json()["sinkHealth"]["state"] == "unhealthy"
        probed = call("POST", f"sync-specs/{kind}/probe")
        assert b"INTERNAL-ONLY" not in made.content + probed.content + call("GET", f"sync-specs/{kind}/probes").content
    assert internal.asked


def test_a_spec_whose_sink_may_not_be_there_says_so(call, settings, internal):
    """It is stored, unhealthy, with the setting that would allow it."""
    settings.BOILERHOUSE_ALLOWED_SINK_HOSTS = []
    sink = {"type": "http", "endpoint": f"http://127.0.0.1:{internal.port}"}
    body = {"id": "own", "poolId": make_pool().pk, "mappings": [MINE], "sink": sink, "policy": {}}
    health = call("POST", "sync-specs", body).json()["sinkHealth"]
    assert (health["state"], health["code"]) == ("unhealthy", "sink_closed")
    assert "BOILERHOUSE_ALLOWED_SINK_HOSTS" in health["detail"]
    assert internal.asked == []
