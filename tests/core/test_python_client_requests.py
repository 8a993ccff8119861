"""What both Python clients send again, and what they do not, against servers that fail as they are told to."""

from __future__ import annotations

import inspect
import io
import json
import socket
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boilerhouse_client as bh
import pytest
from boilerhouse_client import payloads, sse, wire

from tests.python_clients import KINDS, make_client

ROOT = Path(__file__).resolve().parents[2]
Answer = Callable[[BaseHTTPRequestHandler], None]
FILE = {
    "path": "/state/f", "pathEncoding": "utf-8", "name": "f", "type": "file", "size": 3, "mode": "0640",
    "mtime": "2026-11-28T12:00:00Z", "target": None, "etag": '"1"',
}  # fmt: skip


class Server:
    """Gives the answers in their order, one for each request, and records the requests."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                while self.headers.get("Transfer-Encoding") and (size := int(self.rfile.readline(), 16)):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                server.asked.append((self.command, self.path, dict(self.headers), body))
                server.answers.pop(0)(self)

            do_POST = do_PUT = do_DELETE = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def keys(self) -> list[str]:
        return [headers.get("Idempotency-Key", "") for _, _, headers, _ in self.asked]

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def says(status: int, body: Any = None, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def problem(status: int, code: str, **headers: str) -> Answer:
    return says(status, {"code": code, "detail": "…"}, **headers)


def breaks(handler: BaseHTTPRequestHandler) -> None:
    """As a server that was killed when it had read the request."""
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def begins(content: bytes, length: int, status: int = 200, **headers: str) -> Answer:
    """Only the beginning of the content arrives."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(content)
        breaks(handler)

    return answer


def streams(*events: tuple[str, dict[str, Any]]) -> Answer:
    """Server-sent events, after which the connection ends."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(b": hello\n\n")
        for name, data in events:
            handler.wfile.write(f"event: {name}\ndata: {json.dumps(data)}\n\n".encode())
        breaks(handler)

    return answer


def out(data: str, offset: int, name: str = "stdout") -> tuple[str, dict[str, Any]]:
    return name, {"offset": offset, "data": wire.text(data.encode())}


EXIT = ("exit", {"exitCode": 0, "signal": None, "timedOut": False})
STARTED = says(201, {"commandId": "c1", "state": "running", "startedAt": "2026-11-28T12:00:00Z"})


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.stop()


@pytest.fixture(params=KINDS)
def client(request, server):
    made = make_client(request.param, server.url, "bh_key", timeout_s=5, patience_s=5)
    yield made
    made.close()


# Requests -----------------------------------------------------------------------------------------------------


def test_a_post_whose_answer_was_lost_is_sent_again_with_the_same_key(client, server):
    server.answers = [breaks, problem(409, "idempotency_key_in_flight", Retry_After="1"), says(200, {"state": None})]
    assert client.tenant("a").release() is True
    assert len(server.asked) == 3
    assert len(set(server.keys())) == 1
    server.answers = [says(200, {"state": None})]
    client.tenant("a").release()
    assert len(set(server.keys())) == 2, "another call has another key"


def test_it_waits_as_long_as_it_is_told_to(client, server):
    server.answers = [problem(429, "throttled", Retry_After="0"), problem(503, "pool_error", Retry_After="0")]
    server.answers += [says(200, {"items": []})]
    assert client.tenant("a").commands.list() == []
    server.answers = [problem(503, "engine_unavailable")]
    with pytest.raises(bh.Unavailable):
        client.tenant("a").commands.list()
    server.answers = [problem(429, "throttled", Retry_After="0") for _ in range(4)]
    with pytest.raises(bh.Throttled):
        client.tenant("a").commands.list()
    assert server.answers == []


def test_a_condition_is_not_sent_again_once_it_may_have_arrived(client, server):
    """The second answer would be 412, although the first request has written."""
    server.answers = [breaks]
    with pytest.raises(bh.Unreachable):
        client.tenant("a").files.write("f", b"abc", only_new=True)
    server.answers = [breaks]
    with pytest.raises(bh.Unreachable):
        client.pools.replace("p", {}, '"1"')
    server.answers = [breaks, says(200, FILE)]
    assert client.tenant("a").files.write("f", b"abc").mode == 0o640


def test_an_upload_is_sent_again_from_its_beginning_if_it_has_one(client, server, tmp_path):
    (tmp_path / "f").write_bytes(b"0123456789" * 100_000)
    with (tmp_path / "f").open("rb") as file:
        file.seek(10)
        server.answers = [breaks, problem(503, "too_many_transfers", Retry_After="0"), says(200, FILE)]
        client.tenant("a").files.write("f", file)
    assert [body == b"0123456789" * 99_999 for *_, body in server.asked] == [True] * 3
    assert server.asked[0][2]["Content-Length"] == "999990"
    server.answers = [breaks]
    with pytest.raises(bh.Unreachable):
        client.tenant("a").files.write("f", iter([b"once"]))
    assert server.asked[-1][3] == b"once"


def test_a_proxys_error_is_one_too(client, server):
    server.answers = [says(502, b"<html>Bad Gateway</html>")]
    with pytest.raises(bh.Failed) as raised:
        client.pools.get("p")
    assert (raised.value.status, raised.value.code) == (502, "error")


def test_the_key_is_what_counts(client, server, tmp_path, monkeypatch):
    """And not what ``~/.netrc`` has for the server's name."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login other password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    server.answers = [says(200, {"items": []})]
    client.tenant("a").commands.list()
    assert server.asked[0][2]["Authorization"] == "Bearer bh_key"


def test_a_container_does_not_get_the_key(client, server):
    held = {"tenantId": "t", "containerId": "c", "poolId": "p", "generation": 7, "source": "warm"}
    server.answers = [says(201, {**held, "endpoints": [{"name": "http", "url": server.url}]}), says(200, {"is": "it"})]
    claim = client.claim("t", "p")
    assert claim.request("GET", "/x").json() == {"is": "it"}
    _, path, headers, _ = server.asked[-1]
    assert (path, headers["X-Boilerhouse-Generation"]) == ("/x", "7")
    assert "bh_key" not in json.dumps(headers)


def test_containers_at_one_address_do_not_get_each_others_cookies(client, server):
    held = {"tenantId": "t", "containerId": "c", "poolId": "p", "generation": 7, "source": "warm"}
    for _ in range(2):
        server.answers = [says(201, {**held, "endpoints": [{"name": "http", "url": server.url}]})]
        server.answers += [says(200, {}, Set_Cookie="session=secret; Path=/")]
        client.claim("t", "p").request("GET", "/")
        assert "Cookie" not in server.asked[-1][2]


def test_the_result_of_a_claims_command_is_its_own(client, server):
    held = {"tenantId": "t", "containerId": "c", "poolId": "p", "generation": 7, "source": "warm", "endpoints": []}
    done = {
        "commandId": "c1", "exitCode": 0, "signal": None, "stdout": "hé", "stderr": "", "truncated": False,
        "stdoutTruncated": False, "stderrTruncated": False, "durationMs": 3, "via": "agent", "error": None,
    }  # fmt: skip
    late = {**done, "exitCode": None, "error": {"code": "exec_timed_out", "detail": "…"}}
    server.answers = [says(201, {**held, "command": one}) for one in (done, late)] + [says(200, held)]
    assert client.claim("t", "p", command="echo hé").first_result.stdout == "hé"
    assert json.loads(server.asked[-1][3]) == {"poolId": "p", "script": "echo hé"}
    claim = client.claim("t", "p", command=["echo", "hé"])
    with pytest.raises(bh.TimedOut) as raised:
        _ = claim.first_result
    assert raised.value.stdout_bytes == "hé".encode()
    assert client.claim("t", "p").first_result is None


# Streams ------------------------------------------------------------------------------------------------------


def test_output_goes_on_after_the_last_byte_that_came(client, server):
    server.answers = [
        STARTED, streams(out("one ", 4)), breaks, says(502, b"<html>"), streams(out("two", 7), out("!", 8, "stderr"), EXIT),
    ]  # fmt: skip
    seen: list[str] = []
    done = client.tenant("a").commands.run("x", on_stdout=seen.append, on_stderr=lambda text: seen.append(f"E{text}"))
    assert (done.stdout, done.stderr, done.exit_code, seen) == ("one two", "!", 0, ["one ", "two", "E!"])
    assert [path.partition("after=")[2].partition("&")[0] for _, path, *_ in server.asked[1:]] == ["0", "4", "4", "4"]


def test_a_character_that_is_torn_by_the_end_of_a_piece_is_whole(client, server):
    halves = [
        ("stdout", {"offset": n + 1, "data": wire.text(byte)}) for n, byte in enumerate((b"\xc3", b"\xa9", b"\xff"))
    ]
    server.answers = [STARTED, streams(*halves, EXIT)]
    seen: list[str] = []
    assert client.tenant("a").commands.run("x", on_stdout=seen.append).stdout_bytes == b"\xc3\xa9\xff"
    assert "".join(seen) == "é\ufffd"


@pytest.mark.parametrize(
    ("reason", "kind"), [("released", bh.Conflict), ("revoked", bh.Unauthorized), ("lost", bh.Failed)]
)
def test_a_stream_that_is_ended_says_why(client, server, reason, kind):
    status = {
        "commandId": "c1", "state": "lost", "command": None, "script": "x", "cwd": None, "tty": False,
        "startedAt": "2026-11-28T12:00:00Z", "endedAt": None, "exitCode": None, "signal": None, "timedOut": False,
    }  # fmt: skip
    server.answers = [streams(("end", {"reason": reason, "detail": "…"})), says(200, status)]
    with pytest.raises(kind):
        list(client.tenant("a").commands.get("c1").output())


def test_a_lost_connection_is_not_a_lost_command(client, server):
    status = {
        "commandId": "c1", "state": "running", "command": None, "script": "x", "cwd": None, "tty": False,
        "startedAt": "2026-11-28T12:00:00Z", "endedAt": None, "exitCode": None, "signal": None, "timedOut": False,
    }  # fmt: skip
    server.answers = [streams(out("a", 1), ("end", {"reason": "lost", "detail": "…"})), says(200, status)]
    server.answers += [streams(out("b", 2), EXIT)]
    assert client.tenant("a").commands.get("c1").wait().stdout == "ab"


def test_a_gap_is_said_and_cuts_the_result(client, server):
    server.answers = [streams(("gap", {"offset": 10}), out("a", 11), EXIT)] * 2
    command = client.tenant("a").commands.get("c1")
    assert list(command.output())[:2] == [bh.Gap(10), bh.Output("stdout", b"a", 11)]
    assert command.wait().truncated


def test_long_output_is_not_held(client, server, monkeypatch):
    monkeypatch.setattr(wire, "KEPT_BYTES", 4)
    server.answers = [STARTED, streams(out("abc", 3), out("def", 6), EXIT)]
    seen: list[str] = []
    done = client.tenant("a").commands.run("x", on_stdout=seen.append)
    assert (done.stdout, done.stdout_truncated, done.stderr_truncated, "".join(seen)) == ("abcd", True, False, "abcdef")


def test_a_callback_that_fails_ends_the_command(client, server):
    def fails(_: str) -> None:
        raise ZeroDivisionError

    server.answers = [STARTED, streams(out("abc", 3), EXIT), says(204, b"")]
    with pytest.raises(ZeroDivisionError):
        client.tenant("a").commands.run("x", on_stdout=fails)
    assert server.asked[-1][:2] == ("DELETE", "/api/v1/tenants/a/commands/c1")


def test_a_server_that_stays_away_ends_the_patience(server):
    for kind in KINDS:
        client = make_client(kind, server.url, "bh_key", retries=0, patience_s=0.2)
        server.answers = [streams(out("a", 1))] + [breaks] * 100
        seen = []
        with pytest.raises(bh.Unreachable):
            for item in client.tenant("a").commands.get("c1").output():
                seen.append(item)
        assert seen == [bh.Output("stdout", b"a", 1)]
        client.close()


def test_a_download_goes_on_where_it_broke_if_the_file_is_the_same(client, server):
    server.answers = [
        begins(b"0123", 10, ETag='"1"'), begins(b"45", 6, 206, ETag='"1"'), says(206, b"6789", ETag='"1"'),
    ]  # fmt: skip
    assert client.tenant("a").files.read("f") == b"0123456789"
    assert [headers.get("Range") for _, _, headers, _ in server.asked] == [None, "bytes=4-", "bytes=6-"]
    assert {headers.get("If-Range") for _, _, headers, _ in server.asked[1:]} == {'"1"'}
    server.answers = [begins(b"0123", 10, ETag='"1"'), says(200, b"another one", ETag='"2"')]
    with pytest.raises(bh.PreconditionFailed) as raised:
        client.tenant("a").files.read("f")
    assert raised.value.code == "file_changed"


def test_a_download_that_fails_leaves_what_was_there(client, server, tmp_path):
    (tmp_path / "f").write_text("old")
    server.answers = [begins(b"0123", 10, ETag='"1"'), problem(409, "not_assigned")]
    with pytest.raises(bh.Conflict):
        client.tenant("a").files.download("f", tmp_path / "f")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("f", "old")]


@pytest.mark.parametrize(("name", "target"), [("../evil", ""), ("link", "../../evil"), ("/evil", "")])
def test_a_containers_archive_writes_nothing_elsewhere(client, server, tmp_path, name, target):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as made:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = (tarfile.SYMTYPE, target) if target else (tarfile.REGTYPE, "")
        made.addfile(info)
    server.answers = [problem(409, "is_directory"), says(200, content.getvalue())]
    inside = tmp_path / "a" / "b"
    inside.parent.mkdir()
    try:
        client.tenant("a").files.download("dir", inside)
    except tarfile.FilterError:
        assert name != "/evil"
    below = {path.relative_to(tmp_path) for path in tmp_path.rglob("*")} - {Path("a"), Path("a/b"), Path("a/b/evil")}
    assert below == set()


def test_changes_that_were_missed_are_said(client, server):
    change = ("created", {"path": "f", "pathEncoding": "utf-8", "isDirectory": False})
    ready = ("ready", {})
    server.answers = [streams(ready, change), streams(ready, ("end", {}))]
    assert [one.kind for one in client.tenant("a").files.watch()] == ["ready", "created", "overflow"]


def test_events_go_on_after_the_last_one(client, server):
    events = [{"id": n, "type": "t", "payload": {}, "timestamp": "…"} for n in (5, 6, 7)]
    server.answers = [streams(("message", events[0]), ("message", events[1])), streams(("message", events[2]))]
    stream = client.events(poolId="p")
    assert [next(stream).id for _ in range(3)] == [5, 6, 7]
    stream.close()
    assert [headers.get("Last-Event-ID") for _, _, headers, _ in server.asked[:2]] == [None, "6"]


# Parts without a connection -------------------------------------------------------------------------------------


def test_events_are_whole_wherever_their_bytes_are_cut():
    text = (
        'event: a\r\ndata: {"x":\r\ndata: "é"}\r\n\r\n: comment\n\nid: 3\ndata: 1\n\nevent: without data\n\n'.encode()
    )
    expected = [sse.ServerEvent("a", {"x": "é"}), sse.ServerEvent("message", 1)]
    for size in range(1, len(text)):
        parser = sse.Parser()
        found = [event for at in range(0, len(text), size) for event in parser.feed(text[at : at + size])]
        assert found == expected


def test_names_that_are_no_utf_8_come_back_as_they_went():
    name = b"caf\xe9/%41".decode("utf-8", "surrogateescape")
    sent = wire.paths(path=name)
    assert sent["pathEncoding"] == "percent"
    shown = bh.FileInfo.of({**FILE, "path": sent["path"], "name": "x", "pathEncoding": "percent"})
    assert shown.path == name
    assert wire.paths(path="100% é") == {"path": "100% é"}
    assert wire.paths(from_="a", to=Path("b")) == {"from": "a", "to": "b"}


def test_a_directory_is_packed_as_it_is(tmp_path):
    source = tmp_path / "source"
    (source / "dir" / ("long" * 40)).mkdir(parents=True)
    (source / "dir" / "f").write_bytes(b"x" * 700)
    (source / "dir" / "f").chmod(0o640)
    (source / "link").symlink_to("dir/f")
    (source / "empty").touch()
    archive = tmp_path / "archive.tar"
    archive.write_bytes(b"".join(payloads.packed(source).fresh()))
    payloads.unpack(archive, tmp_path / "target")
    found = {path.relative_to(tmp_path / "target") for path in (tmp_path / "target").rglob("*")}
    assert found == {path.relative_to(source) for path in source.rglob("*")}
    assert (tmp_path / "target" / "dir" / "f").read_bytes() == b"x" * 700
    assert (tmp_path / "target" / "dir" / "f").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "target" / "link").readlink() == Path("dir/f")


def test_a_file_that_shrinks_while_it_is_sent_is_an_error(tmp_path):
    (tmp_path / "f").write_bytes(bytes(1_000_000))
    with (tmp_path / "f").open("rb") as file:
        pieces = payloads.payload_of(file).fresh()
        next(pieces)
        (tmp_path / "f").write_bytes(b"")
        with pytest.raises(ValueError, match="shorter"):
            list(pieces)


# The deployment -------------------------------------------------------------------------------------------------


def test_a_deployment_that_is_not_ready_says_what_is_missing_at_once(client, server):
    document = {"status": "not_ready", "checks": {"engine": "refused"}, "failingSteps": []}
    server.answers = [says(503, document, Retry_After="1")]
    assert client.ready() == document
    server.answers = [problem(503, "database_unavailable")]
    with pytest.raises(bh.Unavailable):
        client.ready()


def test_kept_events_are_read_to_their_end_in_both_directions(client, server):
    def page(*ids: int, cursor: str | None = None, is_reset: bool = False) -> Answer:
        items = [{"id": n, "type": "t", "payload": {}, "timestamp": "…"} for n in ids]
        return says(200, {"items": items, "nextCursor": cursor, "reset": is_reset})

    server.answers = [page(9, 8, cursor="c"), page(7)]
    assert [event.id for event in client.past_events(tenantId="a")] == [9, 8, 7]
    server.answers = [page(5, 6, is_reset=True), page(8), page()]
    found = [(event.id, event.type) for event in client.past_events(2)]
    assert found == [(2, "reset"), (5, "t"), (6, "t"), (8, "t")]
    assert ["after=2" in server.asked[2][1], "after=6" in server.asked[3][1], "after=8" in server.asked[4][1]] == [
        True
    ] * 3


def test_a_link_is_used_without_the_key(client, server):
    server.answers = [says(200, b"abc"), says(200, FILE), problem(403, "link_invalid")]
    assert client.read_link(f"{server.url}/link") == b"abc"
    assert client.write_link(f"{server.url}/link", "abc").size == 3
    with pytest.raises(bh.Forbidden):
        client.read_link(f"{server.url}/link")
    assert [body for _, _, _, body in server.asked] == [b"", b"abc", b""]
    assert all("Authorization" not in headers for _, _, headers, _ in server.asked)


# Both clients -------------------------------------------------------------------------------------------------


def test_the_synchronous_client_is_made_of_the_asynchronous_one():
    done = subprocess.run(
        [ROOT / "scripts" / "python-client.sh", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


def test_both_clients_have_the_same_methods():
    names = [name for name in bh.__all__ if name.startswith("Async")]
    assert {"AsyncClient", "AsyncClaim", "AsyncFiles", "AsyncTerminal"} <= set(names)
    for name in names:
        ours, theirs = getattr(bh, name), getattr(bh, name.removeprefix("Async"))
        for method, function in inspect.getmembers(theirs, inspect.isfunction):
            if not method.startswith("__"):
                other = getattr(ours, "aclose" if method == "close" else method)
                assert list(inspect.signature(function).parameters) == list(inspect.signature(other).parameters)
