"""The load that a client without a key can cause: large bodies, held connections, expensive requests."""

from __future__ import annotations

import contextlib
import re
import resource
import signal
import socket
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import requests
from django.contrib.auth.models import User
from django.test import Client
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from boilerhouse.web import connections
from tests.webserver import WebServer, rest, running

pytestmark = [pytest.mark.any_database, pytest.mark.slow]
MB = 1 << 20
PASSWORD = "the right long password"
LIMITS = {
    "BOILERHOUSE_HEAD_TIMEOUT_S": "2", "BOILERHOUSE_BODY_TIMEOUT_S": "3", "BOILERHOUSE_MAX_CONNECTIONS": "200",
    "BOILERHOUSE_MAX_CONNECTIONS_PER_ADDRESS": "40", "BOILERHOUSE_TRUSTED_PROXIES": "192.0.2.0/24",
    "BOILERHOUSE_THROTTLE_RATE": "0", "BOILERHOUSE_LOGIN_FAILURES": "3",
}  # fmt: skip
LIMITS_PASSED_S = 4
"""After so long both time limits have passed."""


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("strangers")


@pytest.fixture(scope="module")
def web(directory):
    """127.0.0.1 is an address like any other."""
    with running(directory, **LIMITS) as one:
        yield one


@pytest.fixture(scope="module")
def proxied(directory, web):
    """127.0.0.1 is a trusted proxy."""
    with running(directory, **{**LIMITS, "BOILERHOUSE_TRUSTED_PROXIES": "127.0.0.1"}) as one:
        yield one


def head(method: str, path: str, **headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def pour(opened: socket.socket, count: int, *, is_chunked: bool) -> int:
    """How many of the bytes the server accepts."""
    piece = b"x" * 65536
    wire = b"10000\r\n" + piece + b"\r\n" if is_chunked else piece
    sent = 0
    opened.settimeout(5)
    try:
        while sent < count:
            opened.sendall(wire)
            sent += len(piece)
    except (OSError, TimeoutError):
        pass
    return sent


@pytest.mark.parametrize(
    ("path", "key", "is_chunked", "expected"),
    [
        ("/api/v1/pools", "", False, 413),
        ("/api/v1/pools", "bh_wrong", True, 401),
        ("/login/", "", True, 413),
    ],
)
def test_nobody_fills_the_disk_or_the_memory_with_a_body(web: WebServer, path, key, is_chunked, expected):
    """500 MB were written to a deleted file in /tmp before the request was checked."""
    length = {"Transfer_Encoding": "chunked"} if is_chunked else {"Content_Length": str(200 * MB)}
    before = web.memory_bytes()
    with web.connect(head("POST", path, **length, **({"Authorization": f"Bearer {key}"} if key else {}))) as opened:
        sent = pour(opened, 200 * MB, is_chunked=is_chunked)
        assert web.spooled_bytes() < MB
        assert sent < 20 * MB, "the rest stays in the sockets' buffers, and with the client"
        answer = rest(opened)
    assert status(answer) == expected, answer[:300]
    assert b"application/problem+json" in answer or not path.startswith("/api/")
    assert b"connection: close" in answer.lower()
    assert web.memory_bytes() - before < 20 * MB


def test_a_head_alone_is_answered_where_no_view_needs_the_body(web: WebServer):
    """Path, method, key and length are checked before the first byte of the body arrives."""
    shaped = f"bh_{'0' * 40}000000"
    for expected, made in (
        (401, head("POST", "/api/v1/pools", Content_Length="500")),
        (401, head("POST", "/api/v1/pools", Content_Length="500", Authorization=f"Bearer {shaped}")),
        (404, head("PUT", "/api/v1/nope", Content_Length="500")),
        (404, head("PUT", "/nope", Transfer_Encoding="chunked")),
        (405, head("POST", "/api/v1/audit", Content_Length="500", Authorization=f"Bearer {web.key}")),
        (413, head("POST", "/api/v1/pools", Content_Length=str(MB + 1), Authorization=f"Bearer {web.key}")),
        (413, head("POST", "/api/v1/pools", Content_Length="9" * 40)),
    ):
        with web.connect(made) as opened:
            assert status(rest(opened)) in (expected, 403 if expected == 404 else 0), made


def test_a_body_is_invited_only_when_it_will_be_read(web: WebServer):
    """`Expect: 100-continue` was answered without a look at the head."""
    for key, expected in ((web.key, 100), ("", 401)):
        for size in (10, 300_000):
            headers = {"Content_Length": str(size), "Expect": "100-continue", "Content_Type": "application/json"}
            asked = head("POST", "/api/v1/pools", **headers, **({"Authorization": f"Bearer {key}"} if key else {}))
            with web.connect(asked) as opened:
                first = opened.recv(65536)
                assert status(first) == expected, first
                if expected == 100:
                    opened.sendall(b"x" * size)
                    assert status(opened.recv(65536)) == 400


def test_a_key_that_only_looks_like_one_gets_no_more_than_the_beginning_read(web: WebServer):
    """Its checksum is right, which anybody can compute; the body is larger than an unauthenticated client may send."""
    from boilerhouse.core.api_keys import _checksum

    body = "a" * 40
    forged = f"bh_{body}{_checksum(body)}"
    with web.connect(
        head("POST", "/api/v1/pools", Authorization=f"Bearer {forged}", Content_Length="900000")
    ) as opened:
        assert status(rest(opened)) == 401
    chunked = head("POST", "/api/v1/pools", Authorization=f"Bearer {forged}", Transfer_Encoding="chunked")
    with web.connect(chunked) as opened:
        opened.sendall(b"8000\r\n" + b"x" * 0x8000 + b"\r\n")
        assert status(rest(opened)) == 401
    with web.connect(head("POST", "/login/", Cookie="sessionid=abc", Content_Length="900000")) as opened:
        assert status(rest(opened)) == 413


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize("size", [10, 20_000, 300_000, MB])
def test_bodies_of_those_with_a_key_come_whole(web: WebServer, size, is_chunked):
    """A valid body arrives complete, and the connection stays open."""
    text = b'{"id": "' + b"a" * (size - 10) + b'"}'
    headers = {"Authorization": f"Bearer {web.key}", "Content-Type": "application/json"}
    with requests.Session() as session:
        for _ in range(2):
            data = iter([text[:7], text[7:]]) if is_chunked else text
            answer = session.post(f"{web.base}/api/v1/pools", data=data, headers=headers, timeout=30)
            assert answer.status_code == 422, answer.text[:300]
        assert "Connection" not in answer.headers


def test_a_trickled_body_ends(web: WebServer):
    """A byte now and then kept a connection open for ever."""
    asked = head("POST", "/api/v1/pools", Authorization=f"Bearer {web.key}", Content_Length="1000")
    with web.connect(asked) as opened:
        answer, until = trickle(opened), time.monotonic() + 15
        assert time.monotonic() < until
    assert status(answer) == 408
    assert b"body_too_slow" in answer


def test_a_trickled_head_ends(web: WebServer):
    with web.connect(b"GET /health HTTP/1.1\r\n") as opened:
        assert trickle(opened, b"X-A: b\r\n") == b""


def trickle(opened: socket.socket, piece: bytes = b"x") -> bytes:
    opened.settimeout(0.2)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            opened.sendall(piece)
            if chunk := opened.recv(65536):
                return chunk
            return b""
        except TimeoutError:
            continue
        except OSError:
            return b""
    raise AssertionError("still open")


def test_idle_connections_take_nobodys_place(web: WebServer):
    """1,000 of them blocked the health check until they timed out."""
    crowd = [web.connect() for _ in range(600)]
    assert web.health() == 200
    answer = requests.get(f"{web.base}/api/v1/pools", headers={"Authorization": f"Bearer {web.key}"}, timeout=10)
    assert answer.status_code == 200
    assert requests.get(f"{web.base}/login/", timeout=10).status_code == 200
    for one in crowd:
        one.close()


def test_who_has_shown_a_key_stays_while_strangers_come(web: WebServer):
    """A long-lived stream and an idle keep-alive connection are not closed because of many new clients."""
    headers = {"Authorization": f"Bearer {web.key}"}
    with requests.Session() as session:
        assert session.get(f"{web.base}/api/v1/pools", headers=headers, timeout=10).status_code == 200
        pools = session.adapters["http://"].poolmanager.pools
        kept = pools[next(iter(pools.keys()))]
        stream = requests.get(f"{web.base}/api/v1/events/stream", headers=headers, stream=True, timeout=60)
        assert stream.status_code == 200
        crowd = []
        for _ in range(3):
            crowd += [web.connect(head("POST", "/login/", Content_Length="100")) for _ in range(250)]
            time.sleep(1.1)
        assert session.get(f"{web.base}/api/v1/pools", headers=headers, timeout=10).status_code == 200
        assert kept.num_connections == 1, "it was kept"
        assert stream.raw.read(1) != b""
        stream.close()
    for one in crowd:
        one.close()


def test_the_process_takes_the_files_it_may_have(web: WebServer):
    """systemd's soft limit is 1,024."""
    soft, hard = resource.prlimit(web.process.pid, resource.RLIMIT_NOFILE)
    assert soft == hard


def test_a_proxys_clients_are_told_apart(proxied: WebServer):
    """One client's slow bodies do not block others behind the same proxy; the proxy itself has no limit."""
    asked = head("POST", "/login/", Content_Length="100", X_Forwarded_For="198.51.100.1")
    slow = [proxied.connect(asked) for _ in range(50)]
    time.sleep(1.5)
    for _ in range(10):
        with proxied.connect(asked) as opened:
            assert b"too_many_bodies" in opened.recv(65536)
    with proxied.connect(head("POST", "/login/", Content_Length="100")) as opened:
        opened.settimeout(0.3)
        with pytest.raises(TimeoutError):
            opened.recv(100)
    with proxied.connect(
        head("POST", "/login/", Content_Length="3", X_Forwarded_For="198.51.100.2") + b"a=b"
    ) as opened:
        assert status(opened.recv(65536)) == 403, "read and refused for want of a CSRF token"
    assert proxied.health() == 200
    for one in slow:
        one.close()


def test_nobody_but_a_trusted_proxy_says_whose_a_request_is(web: WebServer):
    """A header of an unauthenticated client chose the address that it counts for."""
    crowd = [
        web.connect(head("POST", "/login/", Content_Length="100", X_Forwarded_For=f"198.51.100.{one}"))
        for one in range(60)
    ]
    time.sleep(1.5)
    late = [
        web.connect(head("POST", "/login/", Content_Length="100", X_Forwarded_For="203.0.113.7")) for _ in range(30)
    ]
    give_up = time.monotonic() + 30
    while sum(map(has_ended, crowd)) < 30:  # all count for 127.0.0.1: the ones that wait longest make room
        assert time.monotonic() < give_up
    for one in (*crowd, *late):
        one.close()


def has_ended(one: socket.socket) -> bool:
    """Whether the server has closed this idle connection."""
    one.settimeout(0.02)
    try:
        return one.recv(100) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def test_answers_that_nobody_reads_are_not_copied_into_memory(web: WebServer):
    """A thousand connections that requested the schema and read nothing held a megabyte each."""
    before = web.memory_bytes()
    crowd = [web.connect(head("GET", "/api/v1/openapi.json")) for _ in range(60)]
    time.sleep(3)
    grown = web.memory_bytes() - before
    assert grown < 45 * MB, grown
    assert web.health() == 200
    for one in crowd:
        one.close()


def test_pipelined_requests_are_answered_in_order(web: WebServer):
    """The body of one request is followed by the next request at once."""
    key = f"Bearer {web.key}"
    body = b'{"id": "x"}'
    one = head(
        "POST", "/api/v1/pools", Authorization=key, Content_Length=str(len(body)), Content_Type="application/json"
    )
    large = b'{"id": "' + b"a" * 30_000 + b'"}'
    two = head(
        "POST", "/api/v1/pools", Authorization=key, Content_Length=str(len(large)), Content_Type="application/json"
    )
    last = head("GET", "/health", Connection="close")
    with web.connect(one + body + two + large + last) as opened:
        answer = rest(opened)
    assert [int(part.split(b" ", 1)[0]) for part in answer.split(b"HTTP/1.1 ")[1:]] == [422, 422, 200], answer[:2000]


def test_sockets_stay_open_and_end_with_a_word_when_the_process_stops(directory, web: WebServer):
    """They count as connections, idle unauthenticated ones are closed before them, and draining includes them."""
    with running(directory, **LIMITS) as one:
        headers = {"Authorization": f"Bearer {one.key}"}
        with connect(f"ws://127.0.0.1:{one.port}/ws/events", additional_headers=headers) as socket_of_ours:
            crowd = [one.connect() for _ in range(400)]
            assert one.health() == 200
            with pytest.raises(TimeoutError):
                socket_of_ours.recv(timeout=LIMITS_PASSED_S)
            for stranger in crowd:
                stranger.close()
            one.process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    socket_of_ours.recv(timeout=10)
        assert closed.value.rcvd.code == 4503
        assert one.process.wait(20) == 0


def test_a_keys_sockets_are_counted_as_its_requests_are(directory):
    """Six hundred handshakes a second of one key halved the throughput of all commands (P14)."""
    few = {"BOILERHOUSE_THROTTLE_RATE": "0.01", "BOILERHOUSE_THROTTLE_BURST": "3"}
    with running(directory, **{**LIMITS, **few}) as one:
        headers = {"Authorization": f"Bearer {one.key}"}
        codes = []
        for _ in range(4):
            with connect(f"ws://127.0.0.1:{one.port}/ws/events", additional_headers=headers) as opened:
                try:
                    opened.recv(timeout=1)
                    opened.recv(timeout=1)
                except TimeoutError:
                    codes.append(0)
                except ConnectionClosed as closed:
                    codes.append(closed.rcvd.code)
        assert codes == [0, 0, 0, 4429]
        assert requests.get(f"{one.base}/api/v1/pools", headers=headers, timeout=10).status_code == 429


DAPHNES_HANDSHAKE_S = 5
"""After so long daphne ended a connection whose handshake it had not answered."""


def test_handshakes_are_answered_however_late(directory):
    """On a busy machine, handshakes that waited for their refusal were cut off, or answered 403, after five seconds
    (P14)."""
    with ExitStack() as opened:
        one = opened.enter_context(running(directory, BOILERHOUSE_MAX_CONNECTIONS_PER_ADDRESS="1000"))
        wrong = one.key[:-1] + ("a" if one.key[-1] != "a" else "b")
        upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec_WebSocket_Version": "13"}
        upgrade |= {"Sec_WebSocket_Key": "AAAAAAAAAAAAAAAAAAAAAA==", "Authorization": f"Bearer {wrong}"}
        asked = [opened.enter_context(one.connect(head("GET", "/ws/events", **upgrade), 60)) for _ in range(250)]
        time.sleep(0.5)  # about a hundred are refused at once, and a hundred a second later
        one.process.send_signal(signal.SIGSTOP)
        time.sleep(DAPHNES_HANDSHAKE_S + 0.5)
        one.process.send_signal(signal.SIGCONT)
        assert [status(socket.recv(65536) or b"closed 0 ") for socket in asked] == [101] * len(asked)
        headers = {"Authorization": f"Bearer {one.key}"}
        counted = requests.get(f"{one.base}/api/v1/metrics", headers=headers, timeout=30).text
        assert re.search(r'refusals_total{answered="late"} [1-9]', counted), "some had to wait"


def test_a_throttled_key_is_refused_before_anything_is_looked_up(directory):
    """Four thousand refusals of one key, each with a thread and a query, used half a processor (P14)."""
    few = {"BOILERHOUSE_THROTTLE_RATE": "0.01", "BOILERHOUSE_THROTTLE_BURST": "3"}
    with running(directory, **{**LIMITS, **few}) as one:

        def ask(key: str) -> requests.Response:
            return requests.get(f"{one.base}/api/v1/pools", headers={"Authorization": f"Bearer {key}"}, timeout=10)

        answers = [ask(one.key) for _ in range(6)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429, 429]
        by_view, at_once = answers[3], answers[5]
        assert by_view.json()["code"] == at_once.json()["code"] == "throttled"
        assert by_view.json()["detail"] != at_once.json()["detail"]
        assert 1 <= int(at_once.headers["Retry-After"]) <= 100
        assert at_once.headers["X-Request-ID"] == at_once.json()["requestId"]
        assert ask(one.key[:-1] + ("a" if one.key[-1] != "a" else "b")).status_code == 401, (
            "another key is not that one"
        )

        def flood(number: int) -> int:
            asked, url = 0, f"ws://127.0.0.1:{one.port}/ws/events"
            with requests.Session() as session:
                while time.monotonic() < end:
                    if number % 2:
                        session.get(f"{one.base}/api/v1/pools", headers=headers, timeout=60)
                    else:
                        with (
                            connect(url, additional_headers=headers) as opened,
                            contextlib.suppress(ConnectionClosed, TimeoutError),
                        ):
                            opened.recv(timeout=5)
                    asked += 1
            return asked

        large = head("POST", "/api/v1/pools", Authorization=f"Bearer {one.key}", Content_Length="900000")
        with one.connect(large) as opened:
            assert status(rest(opened)) == 429, "none of its body is waited for"
        headers, end = {"Authorization": f"Bearer {one.key}"}, time.monotonic() + 3
        with ThreadPoolExecutor(20) as threads:
            asked = sum(threads.map(flood, range(20)))
        assert asked <= 20 * 4 + 20 + 3 * 10 + 20, "refusals are late, of requests and of handshakes"


def sign_in(base: str, name: str, address: str, password: str = "wrong") -> int:
    with requests.Session() as session:
        session.headers["X-Forwarded-For"] = address
        session.get(f"{base}/login/", timeout=60)
        given = {"username": name, "password": password, "csrfmiddlewaretoken": session.cookies["csrftoken"]}
        return session.post(f"{base}/login/", data=given, timeout=60, allow_redirects=False).status_code


def test_guessers_of_passwords_keep_nobody_from_anything(proxied: WebServer):
    """Twelve connections with random names occupied all threads, and hashed with the web process's priority."""
    proxied.manage(
        "shell",
        "-c",
        f"from django.contrib.auth.models import User; User.objects.create_superuser('staff', password={PASSWORD!r})",
    )
    stop = threading.Event()

    def guess(number: int) -> list[int]:
        found = []
        while not stop.is_set():
            found.append(sign_in(proxied.base, f"nobody-{number}-{len(found)}", "198.51.100.9"))
        return found

    with ThreadPoolExecutor(12) as crowd:
        guessing = [crowd.submit(guess, number) for number in range(12)]
        headers = {"Authorization": f"Bearer {proxied.key}"}
        try:
            asked = []
            until = time.monotonic() + 3
            while time.monotonic() < until:
                began = time.monotonic()
                assert requests.get(f"{proxied.base}/api/v1/pools", headers=headers, timeout=10).status_code == 200
                asked.append(time.monotonic() - began)
            assert sign_in(proxied.base, "staff", "203.0.113.4", PASSWORD) == 302
        finally:
            stop.set()
    found = [status for one in guessing for status in one.result()]
    assert set(found) == {200, 429}, "hashed one after the other, four of an address in line, the rest refused"
    assert statistics.median(asked) < 2.5


def test_guessing_locks_still_however_many_guess_at_once(proxied: WebServer):
    """The failures of one name are counted in order."""
    with ThreadPoolExecutor(4) as crowd:
        found = list(crowd.map(lambda _: sign_in(proxied.base, "victim", "198.51.100.20"), range(16)))
    assert found.count(200) <= int(LIMITS["BOILERHOUSE_LOGIN_FAILURES"])
    assert sign_in(proxied.base, "victim", "198.51.100.20") == 429


def test_the_document_of_the_api_is_made_once(web: WebServer):
    """It was rendered for each request, a megabyte each time."""
    where = f"{web.base}/api/v1/openapi.json"
    plain = requests.get(where, timeout=30, headers={"Accept-Encoding": "identity"})
    packed = requests.get(where, timeout=30, headers={"Accept-Encoding": "gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert packed.json() == plain.json()
    assert int(packed.headers["Content-Length"]) * 5 < int(plain.headers["Content-Length"])
    again = requests.get(where, timeout=30, headers={"If-None-Match": plain.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_socket_for_no_path_is_refused_without_a_traceback(web: WebServer):
    """Each wrote a traceback of forty lines into the log."""
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://127.0.0.1:{web.port}/ws/nothing")
    assert refused.value.response.status_code == 403
    assert "Traceback" not in web.log
    assert "Exception inside application" not in web.log


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.7", "192.0.2.7"), ("::ffff:192.0.2.7", "192.0.2.7"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::9", "2001:db8:1:2::"), ("fe80::1%eth0", "fe80::"), ("", ""), ("odd", "odd"),
    ],
)  # fmt: skip
def test_all_addresses_of_a_host_count_as_one_client(address, expected):
    """A machine has 2^64 IPv6 addresses, and each had its own limits."""
    assert connections.client_at(address) == expected


def test_a_guesser_with_many_addresses_waits_too(client, data_dir, settings):
    settings.AXES_FAILURE_LIMIT = 3
    User.objects.create_superuser("ada", password=PASSWORD)
    for number in range(3):
        given = {"username": "ada", "password": "wrong"}
        answer = client.post("/login/", given, REMOTE_ADDR=f"2001:db8:1:2::{number + 1}")
    assert answer.status_code == 429
    elsewhere = Client(REMOTE_ADDR="2001:db8:1:3::1")
    assert elsewhere.post("/login/", {"username": "ada", "password": PASSWORD}).status_code == 302
