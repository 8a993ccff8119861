"""The load that one key can put on a web process, and the service that other clients get meanwhile (P14)."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import requests
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.waiting import eventually
from tests.webserver import WebServer, rest, running

pytestmark = [pytest.mark.any_database, pytest.mark.slow]
PATIENCE_S = 60
ROWS = """
from django.utils.timezone import now
from tests.make import make_container, make_pool
from tests.make import make_assignment
from pools.states import ContainerState
from tenants.states import AssignmentState
full = make_pool("full", max_size=1)
make_pool("full2", max_size=1)
pool = make_pool("work", max_size=100)
for name in ["bob", *(f"m{n}" for n in range(6))]:
    row = make_container(pool, state=ContainerState.CLAIMED)
    make_assignment(name, pool=pool, state=AssignmentState.ASSIGNED, container=row, container_ref=row.pk, assigned_at=now())
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """An engine that accepts every request and answers none."""
    path = tmp_path_factory.mktemp("engine") / "sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(256)
        yield f"unix://{path}"


@pytest.fixture(scope="module")
def web(tmp_path_factory, engine):
    with running(tmp_path_factory.mktemp("shares"), BOILERHOUSE_THROTTLE_RATE="0", DOCKER_HOST=engine) as one:
        one.manage("shell", "-c", ROWS)
        yield one


def key_of(web: WebServer, *tenants: str, role: str = "tenant") -> str:
    body = {"name": "-".join(tenants)[:60] or role, "role": role, **({"tenantIds": tenants} if tenants else {})}
    made = requests.post(f"{web.base}/api/v1/api-keys", json=body, headers=auth(web.key), timeout=30)
    return str(made.json()["key"])


def auth(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def ask(web: WebServer, key: str, method: str, path: str, body=None, **more: str) -> requests.Response:
    headers = {**auth(key), **more}
    return requests.request(method, f"{web.base}/api/v1/{path}", json=body, headers=headers, timeout=PATIENCE_S)


def send(web: WebServer, key: str, method: str, path: str, body=None, **more: str) -> socket.socket:
    """Send a request without waiting for the answer."""
    data = json.dumps(body).encode() if body is not None else b""
    head = f"{method} /api/v1/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in more.items())
    kind = f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n" if data else ""
    return web.connect(f"{head}{kind}\r\n".encode() + data, timeout=PATIENCE_S)


def answer_of(opened: socket.socket) -> bytes:
    """The beginning of an answer: its head, and the document of a problem."""
    found = opened.recv(65536)
    while found.startswith(b"HTTP/1.1 429") and b'"code"' not in found:
        found += opened.recv(65536)
    return found


def measured(web: WebServer, name: str, **labels: str) -> float:
    text = ask(web, web.key, "GET", "metrics").text
    assert "mallory" not in text
    inside = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
    found = re.search(rf"^boilerhouse_{name}{{{re.escape(inside)}}} (\S+)$", text, re.M)
    return float(found[1]) if found else 0.0


def test_joined_claims_count_once_and_refuse_nobody(web: WebServer):
    """205 requests of one key wait for one claim; other keys can claim, and releases are never refused."""
    mallory, bob = key_of(web, "mallory"), key_of(web, "bob", "b2")
    claim = {"poolId": "full"}
    with ExitStack() as opened:
        for _ in range(205):
            opened.enter_context(send(web, mallory, "POST", "tenants/mallory/claim?timeoutMs=600000", claim))
        eventually(lambda: measured(web, "budget_refusals_total", of="tenant", resource="waiters") >= 180)
        assert measured(web, "budget_used", resource="waiters") == 1

        refused = ask(web, mallory, "POST", "tenants/mallory/claim", claim)
        assert (refused.status_code, refused.json()["code"]) == (429, "budget_exceeded")
        assert refused.headers["Retry-After"] == "1"
        given_up = ask(web, bob, "POST", "tenants/b2/claim?timeoutMs=200", claim)
        assert given_up.json()["code"] == "pool_exhausted", "it waited"
        assert ask(web, bob, "POST", "tenants/bob/release?timeoutMs=200").status_code == 202
        for body in (None, {"discard": True}):
            assert ask(web, mallory, "POST", "tenants/mallory/release", body).status_code in (200, 202, 404)
    eventually(lambda: measured(web, "budget_used", resource="waiters") == 0)


def test_clients_that_vanish_give_back_what_their_requests_held(web: WebServer):
    """The first client disconnects, then the one that joined; the idempotency key does not stay in use."""
    key = key_of(web, "leaver")
    path, body = "tenants/leaver/claim?timeoutMs=600000", {"poolId": "full"}
    first = send(web, key, "POST", path, body)
    eventually(lambda: measured(web, "budget_used", resource="waiters") == 1)
    with send(web, key, "POST", path, body):
        for _ in range(3):
            gone = [send(web, key, "POST", path, body) for _ in range(15)]
            time.sleep(0.5)
            for one in gone:
                one.close()
        first.close()
        assert measured(web, "budget_used", resource="waiters") == 1
    eventually(lambda: measured(web, "budget_used", resource="waiters") == 0)

    with send(web, key, "POST", path, body, **{"Idempotency-Key": "once"}):
        eventually(lambda: measured(web, "budget_used", resource="waiters") == 1)
    eventually(lambda: measured(web, "budget_used", resource="waiters") == 0)
    again = ask(web, key, "POST", path[:-4], body, **{"Idempotency-Key": "once"})
    assert again.json()["code"] != "idempotency_key_in_flight"


def test_a_platforms_key_leaves_waiting_places_and_is_obeyed_when_it_releases(web: WebServer):
    """An operator's key claims for 160 tenants in a full pool; other keys can wait too, and releases complete."""
    ops, bob = key_of(web, role="operator"), key_of(web, "bob2")
    with ExitStack() as opened:
        for number in range(160):
            path = f"tenants/w{number}/claim?timeoutMs=600000"
            opened.enter_context(send(web, ops, "POST", path, {"poolId": ("full", "full2")[number % 2]}))
        eventually(lambda: measured(web, "budget_used", resource="waiters") >= 150)
        eventually(lambda: measured(web, "budget_refusals_total", of="key", resource="waiters") >= 6)
        assert measured(web, "budget_used", resource="waiters") < 155, "those that were judged at the same moment"
        given_up = ask(web, bob, "POST", "tenants/bob2/claim?timeoutMs=200", {"poolId": "full"})
        assert given_up.json()["code"] == "pool_exhausted"
        held = [number for number in (0, 1, 2) if ask(web, ops, "GET", f"tenants/w{number}/status").json()["assigned"]]
        assert ask(web, ops, "POST", f"tenants/w{held[0]}/release").status_code in (200, 202)
    eventually(lambda: measured(web, "budget_used", resource="waiters") == 0)


def test_streams_of_a_tenant_are_bounded_and_leave_room_to_everybody(web: WebServer):
    """Event streams and sockets share a limit; other keys can open theirs, and closed ones free their slot."""
    first, second = key_of(web, "streamer"), key_of(web, "streamer")
    bob, ops = key_of(web, "bob3"), key_of(web, role="operator")
    url = f"ws://127.0.0.1:{web.port}/ws/events"
    with ExitStack() as opened:
        asked = [
            opened.enter_context(send(web, (first, second)[number % 2], "GET", "events/stream"))
            for number in range(120)
        ]
        answers = [answer_of(one) for one in asked]
        statuses = [int(answer.split()[1]) for answer in answers]
        assert (statuses.count(200), statuses.count(429)) == (50, 70)
        refusals = [answer for answer in answers if answer.startswith(b"HTTP/1.1 429")]
        assert all(b"budget_exceeded" in one and b"retry-after: 1" in one.lower() for one in refusals)
        with connect(url, additional_headers=auth(first)) as refused, pytest.raises(ConnectionClosed) as closed:
            assert "streamer has 50" in refused.recv(timeout=PATIENCE_S)
            refused.recv(timeout=PATIENCE_S)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4429

        for key in (bob, ops):
            other = opened.enter_context(send(web, key, "GET", "events/stream"))
            assert answer_of(other).startswith(b"HTTP/1.1 200")
        with connect(url, additional_headers=auth(bob)):
            eventually(lambda: measured(web, "budget_used", resource="streams") == 53)
    eventually(lambda: measured(web, "budget_used", resource="streams") == 0)
    with send(web, first, "GET", "events/stream") as again:
        assert answer_of(again).startswith(b"HTTP/1.1 200")
    eventually(lambda: measured(web, "budget_used", resource="streams") == 0)


def test_commands_of_one_key_leave_slow_threads_to_others(web: WebServer):
    """Endless commands on an engine that does not answer, of two tenants and of a platform's key."""
    keys, bob = [key_of(web, f"m{n}") for n in range(2)], key_of(web, "bob4")
    ops = key_of(web, role="operator")
    with ExitStack() as opened:
        for number in range(40):
            body = {"command": ["true"], "timeoutMs": 600_000}
            tenant = number % 2
            opened.enter_context(send(web, keys[tenant], "POST", f"tenants/m{tenant}/exec", body))
        eventually(lambda: measured(web, "budget_used", resource="slow") == 8)
        with ThreadPoolExecutor(8) as threads:
            others = list(threads.map(lambda _: ask(web, bob, "GET", "tenants/bob4/logs"), range(8)))
        assert {one.status_code for one in others} <= {409, 429}
        assert 409 in {one.status_code for one in others}, "answered by a thread for slow work"
        for number in range(40):
            opened.enter_context(send(web, ops, "POST", f"tenants/m{2 + number % 4}/exec", body))
        eventually(lambda: measured(web, "budget_refusals_total", of="key", resource="slow") >= 20)
        assert measured(web, "budget_used", resource="slow") <= 16


def flood(count: int, ask_once: Callable[[], object]) -> int:
    """How many answers this number of clients get in two seconds if each asks again at once."""
    end = time.monotonic() + 2

    def client(_: int) -> int:
        asked = 0
        while time.monotonic() < end:
            ask_once()
            asked += 1
        return asked

    with ThreadPoolExecutor(count) as threads:
        return sum(threads.map(client, range(count)))


def test_who_asks_again_at_once_is_refused_late(web: WebServer):
    """5,326 refusals of one key in 12 s cost other clients more than the refused work would have."""
    mallory, bob = key_of(web, "again"), key_of(web, "bob5")
    claim, at_once = {"poolId": "full"}, measured(web, "refusals_total", answered="at_once")
    with ExitStack() as opened:
        for _ in range(20):
            opened.enter_context(send(web, mallory, "POST", "tenants/again/claim?timeoutMs=600000", claim))
        eventually(lambda: ask(web, mallory, "POST", "tenants/again/claim", claim).status_code == 429)

        def refused() -> None:
            answer = ask(web, mallory, "POST", "tenants/again/claim", claim)
            assert (answer.status_code, answer.json()["code"]) == (429, "budget_exceeded")

        assert flood(20, refused) <= 20 * 3 + 20 + 2 * 10 + 20, "each waits a second but a few"
        assert measured(web, "refusals_total", answered="at_once") - at_once <= 20 + 10 * PATIENCE_S
        assert measured(web, "refusals_total", answered="late") >= 20
        began = time.monotonic()
        assert ask(web, mallory, "POST", "tenants/again/release", {"discard": True}).status_code in (200, 202, 404)
        assert [ask(web, bob, "GET", "tenants/bob5/status").status_code for _ in range(20)] == [200] * 20
        assert time.monotonic() - began < 20, "neither waits for a refusal's time"


def test_more_late_refusals_of_one_than_may_wait_end_their_connections(web: WebServer):
    """A thousand connections do not get a thousand coroutines; those above the limit get an error and are closed."""
    mallory, closed = key_of(web, "many"), measured(web, "refusals_total", answered="closed")
    with ExitStack() as opened:
        asked = [opened.enter_context(send(web, mallory, "GET", "events/stream")) for _ in range(50 + 20 + 100 + 60)]
        answers = [answer_of(one) for one in asked]
        assert [answer.split()[1] for answer in answers].count(b"200") == 50
        ended = [one for one, answer in zip(asked, answers, strict=True) if b"connection: close" in answer.lower()]
        assert ended
        assert len(ended) == measured(web, "refusals_total", answered="closed") - closed
        assert all(rest(one) == b"" for one in ended)


def test_wrong_keys_are_refused_late_by_address_and_right_ones_at_once(web: WebServer):
    """While a client tries keys as fast as it can, a valid key is answered at once from the same address."""
    wrong = f"{web.key[:-1]}{'a' if web.key[-1] != 'a' else 'b'}"
    assert flood(40, lambda: ask(web, wrong, "GET", "pools")) <= 40 * 3 + 100 + 2 * 50 + 40

    def no_socket() -> None:
        with connect(f"ws://127.0.0.1:{web.port}/ws/events", additional_headers=auth(wrong)) as one:
            with pytest.raises(ConnectionClosed) as closed:
                one.recv(timeout=PATIENCE_S), one.recv(timeout=PATIENCE_S)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4401

    assert flood(40, no_socket) <= 40 * 3 + 100 + 2 * 50 + 40
    late = measured(web, "refusals_total", answered="late")
    assert {ask(web, web.key, "GET", "pools").status_code for _ in range(50)} == {200}
    assert measured(web, "refusals_total", answered="late") == late


MB = 1 << 20


def test_requests_that_wait_hold_no_body(web: WebServer):
    """140 waiting claims with large metadata took 310 MB of the process."""
    ops = key_of(web, role="operator")
    body = {"poolId": "full", "metadata": {"x": "y" * 900_000}}
    with ExitStack() as opened:

        def wait_beside(first: int, last: int) -> int:
            for number in range(first, last):
                opened.enter_context(send(web, ops, "POST", f"tenants/l{number}/claim?timeoutMs=600000", body))
            eventually(lambda: measured(web, "budget_used", resource="waiters") == last)
            return web.memory_bytes()

        before = wait_beside(0, 20)  # what threads and connections take is no part of it
        for last in range(40, 100, 20):  # more at once than the key may have on their way would be refused
            wait_beside(last - 20, last)
        assert wait_beside(80, 100) - before < 80 * 900_000 / 2
        assert measured(web, "budget_used", resource="bodies") == 0
    eventually(lambda: measured(web, "budget_used", resource="waiters") == 0)


def test_long_bodies_of_a_tenant_take_its_share_of_memory_alone(web: WebServer):
    """Every connection could have a body of a megabyte in transfer (P14)."""
    first, second, bob = key_of(web, "loader"), key_of(web, "loader"), key_of(web, "bob6")

    def begin(key: str) -> bytes:
        head = f"POST /api/v1/tenants/loader/claim HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
        kind = f"Content-Type: application/json\r\nContent-Length: {MB}\r\n\r\n"
        return (head + kind).encode() + b" " * 1000

    with ExitStack() as opened:
        for number in range(16):
            opened.enter_context(web.connect(begin((first, second)[number % 2]), timeout=PATIENCE_S))
        eventually(lambda: measured(web, "budget_used", resource="bodies") == 16 * MB)
        for key in (first, second):
            with web.connect(begin(key), timeout=PATIENCE_S) as one:
                refused = rest(one)
                assert refused.startswith(b"HTTP/1.1 429"), refused
                assert b"budget_exceeded" in refused
                assert b"retry-after: 1" in refused.lower()
        assert measured(web, "budget_refusals_total", of="tenant", resource="bodies") == 2
        assert ask(web, first, "GET", "tenants/loader/status").status_code == 200
        assert ask(web, first, "POST", "tenants/loader/release", {"discard": True}).status_code == 404
        large = {"poolId": "nope", "metadata": {"x": "y" * 900_000}}
        assert ask(web, bob, "POST", "tenants/bob6/claim", large).json()["code"] == "pool_not_found"
    eventually(lambda: measured(web, "budget_used", resource="bodies") == 0)
    assert ask(web, first, "POST", "tenants/loader/claim", large).json()["code"] == "pool_not_found"
