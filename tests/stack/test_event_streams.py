"""The event stream over WebSocket and server-sent events: no event lost, duplicated, or sent to another tenant."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from boilerhouse.core.events import emit
from boilerhouse.core.models import Deployment, Event
from tests.stack.conftest import eventually
from tests.stack.event_bursts import emit_events, web_pid

pytestmark = pytest.mark.stack


def url(stack: Any, **query: Any) -> str:
    text = "&".join(f"{name}={value}" for name, value in query.items())
    return f"{stack.base.replace('http', 'ws')}/ws/events?{text}"


@contextlib.contextmanager
def socket_of(
    stack: Any, key: str | None = None, headers: dict[str, str] | None = None, **query: Any
) -> Iterator[ClientConnection]:
    named = {"Authorization": f"Bearer {key or stack.key}"} if headers is None else headers
    with connect(url(stack, **query), additional_headers=named, open_timeout=20, max_queue=None) as opened:
        yield opened


def take(opened: ClientConnection, count: int, seconds: float = 20) -> list[dict[str, Any]]:
    deadline = time.monotonic() + seconds
    return [json.loads(opened.recv(timeout=max(0.01, deadline - time.monotonic()))) for _ in range(count)]


def refusal(opened: ClientConnection) -> tuple[int, str]:
    """How the server closed it, and why by its last message."""
    last = "{}"
    with pytest.raises(ConnectionClosed) as closed:
        for _ in range(10_000):
            last = opened.recv(timeout=20)
    assert closed.value.rcvd
    told = json.loads(last)
    assert (told["type"], told["code"]) == ("error", closed.value.rcvd.code)
    return told["code"], told["detail"]


def newest() -> int:
    return Event.objects.order_by("-id").values_list("id", flat=True).first() or 0


@pytest.fixture
def pool() -> str:
    return f"e-{uuid.uuid4().hex[:8]}"


def numbers(events: list[dict[str, Any]]) -> list[int]:
    return [event["payload"]["number"] for event in events]


def test_replay_then_live_without_gap_or_double(stack, pool):
    start = newest()
    emit_events(pool, 20)
    with socket_of(stack, after=start, poolId=pool) as opened:
        assert numbers(take(opened, 20)) == list(range(20))
        emit_events(pool, 20)
        events = take(opened, 20)
    assert numbers(events) == list(range(20))
    assert events[0].keys() == {"id", "type", "payload", "timestamp"}
    assert events[0]["payload"]["poolId"] == pool
    with socket_of(stack, after=events[9]["id"], poolId=pool) as opened:
        assert numbers(take(opened, 10)) == list(range(10, 20))


def write_in_threads(pool: str, writers: int, each: int) -> list[threading.Thread]:
    def write() -> None:
        try:
            emit_events(pool, each)
        finally:
            connection.close()

    threads = [threading.Thread(target=write) for _ in range(writers)]
    for thread in threads:
        thread.start()
    return threads


def test_many_writers_and_readers_that_come_and_go_lose_nothing(stack, pool):
    """An id that is allocated before another but commits after it must not be skipped."""
    writers, each = 6, 40
    start, found, failed = newest(), [], []

    def read(chunk: int) -> None:
        seen: list[int] = []
        try:
            while len(seen) < writers * each:
                with socket_of(stack, after=seen[-1] if seen else start, poolId=pool) as opened:
                    seen += [e["id"] for e in take(opened, min(chunk, writers * each - len(seen)), 60)]
            found.append(seen)
        except BaseException as error:
            failed.append(error)

    readers = [threading.Thread(target=read, args=(chunk,)) for chunk in (1000, 37, 11, 60)]
    for reader in readers:
        reader.start()
    for thread in (*write_in_threads(pool, writers, each), *readers):
        thread.join()

    assert not failed
    truth = list(Event.objects.filter(pk__gt=start, pool_id=pool).order_by("id").values_list("id", flat=True))
    assert len(truth) == writers * each
    assert all(seen == truth for seen in found)


def test_an_event_is_seen_only_when_it_is_committed(stack, pool):
    from django.db import transaction

    with socket_of(stack, after=newest(), poolId=pool) as opened:
        time.sleep(0.3)
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            emit("pool.scaled", pool_id=pool, number=-1)
            raise ZeroDivisionError
        emit_events(pool)
        assert numbers(take(opened, 1)) == [0]


@pytest.mark.any_database
def test_filters_narrow_and_repeat(stack, pool):
    other = f"{pool}-b"
    start = newest()
    emit("pool.warning", pool_id=pool, number=1)
    emit("pool.scaled", pool_id=pool, number=2)
    emit("pool.scaled", pool_id=other, number=3, tenant_id="filter-t", container_id="c1")
    with connect(
        url(stack, after=start) + f"&poolId={pool}&poolId={other}&type=pool.scaled",
        additional_headers={"Authorization": f"Bearer {stack.key}"},
    ) as opened:
        assert numbers(take(opened, 2)) == [2, 3]
    with socket_of(stack, after=start, tenantId="filter-t", containerId="c1") as opened:
        assert numbers(take(opened, 1)) == [3]


@pytest.mark.any_database
def test_a_tenants_key_sees_its_own_events_only(stack, pool):
    made = stack.ok("POST", "api-keys", {"name": "t", "role": "tenant", "tenantIds": ["ev-a", "ev-b"]}, 201)
    start = newest()
    for number, tenant in enumerate(("ev-a", "ev-c", "", "ev-b", "ev-aa")):
        emit("pool.scaled", pool_id=pool, tenant_id=tenant, number=number)
    with socket_of(stack, made["key"], after=start) as opened:
        assert numbers(take(opened, 2)) == [0, 3]
        emit("pool.scaled", pool_id=pool, tenant_id="ev-c", number=8)
        emit("pool.scaled", pool_id=pool, tenant_id="ev-a", number=9)
        assert numbers(take(opened, 1)) == [9]
    with socket_of(stack, made["key"], after=start, tenantId="ev-b") as opened:
        assert numbers(take(opened, 1)) == [3]
    with socket_of(stack, made["key"], tenantId="ev-c") as opened:
        assert refusal(opened)[0] == 4404
    answer = stack.call("GET", f"events?after={start}", headers={"Authorization": f"Bearer {made['key']}"})
    assert numbers(answer.json()["items"]) == [0, 3, 9]
    answer = stack.call("GET", "events/stream?tenantId=ev-c", headers={"Authorization": f"Bearer {made['key']}"})
    assert answer.status_code == 404


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"after": "x"}, 4400),
        ({"after": "-1"}, 4400),
        ({"after": "9" * 30}, 4400),
        ({"nonsense": "1"}, 4400),
        ({"poolId": "%00"}, 4400),
    ],
)
def test_bad_queries_are_closed_with_a_reason(stack, query, code):
    with socket_of(stack, **query) as opened:
        assert refusal(opened)[0] == code


@pytest.mark.any_database
def test_nobody_reads_without_a_living_key(stack):
    for header in ("Bearer nonsense", "Bearer bh_" + "0" * 46, "Basic YTpi", "Bearer"):
        with socket_of(stack, headers={"Authorization": header}) as opened:
            assert refusal(opened)[0] == 4401
    with socket_of(stack, headers={}) as opened:
        assert refusal(opened)[0] == 4401


@pytest.mark.any_database
def test_what_is_committed_as_soon_as_a_stream_is_open_arrives(stack, pool):
    for number in range(15):
        with socket_of(stack, poolId=pool) as opened:
            emit_events(pool)
            assert numbers(take(opened, 1)) == [0], number
    headers = {"Authorization": f"Bearer {stack.key}"}
    for number in range(5):
        with requests.get(
            f"{stack.base}/api/v1/events/stream?poolId={pool}", headers=headers, stream=True, timeout=10
        ) as answer:
            emit_events(pool)
            assert any(line.startswith(b"data: ") for line in answer.iter_lines()), number


@pytest.mark.any_database
def test_a_revoked_key_loses_its_open_streams_at_once(stack, pool):
    made = stack.ok("POST", "api-keys", {"name": "r", "role": "viewer"}, 201)
    said: list[bytes] = []
    is_open = threading.Event()

    def follow() -> None:
        with requests.get(
            f"{stack.base}/api/v1/events/stream",
            headers={"Authorization": f"Bearer {made['key']}"},
            stream=True,
            timeout=30,
        ) as answer:
            is_open.set()
            said.extend(answer.iter_lines())

    reader = threading.Thread(target=follow)
    reader.start()
    with socket_of(stack, made["key"], poolId=pool) as opened:
        emit_events(pool)
        take(opened, 1)
        assert is_open.wait(30)
        began = time.monotonic()
        stack.ok("DELETE", f"api-keys/{made['id']}", status=204)
        code, reason = refusal(opened)
        assert (code, time.monotonic() - began < 15) == (4401, True)
    assert "revoked" in reason
    reader.join(30)
    assert b"event: revoked" in said


def session_of(user: User, stack: Any) -> str:
    client = Client()
    client.force_login(user)
    return client.cookies["sessionid"].value


@pytest.mark.any_database
def test_a_staff_session_reads_from_our_own_pages_only_and_until_it_signs_out(stack, pool):
    User.objects.filter(username__in=["ws-staff", "ws-guest"]).delete()
    staff = User.objects.create_user("ws-staff", password=None, is_staff=True)
    guest = User.objects.create_user("ws-guest", password=None)
    cookie = session_of(staff, stack)
    own = {"Cookie": f"sessionid={cookie}", "Origin": stack.base}
    with pytest.raises(InvalidStatus, match="403"), socket_of(stack, headers={**own, "Origin": "https://evil.example"}):
        pass
    for other in (
        "http://127.0.0.1:1",
        stack.base.replace("http", "https"),
        "null",
    ):  # a tenant's page, at another port
        with pytest.raises(InvalidStatus, match="403"), socket_of(stack, headers={**own, "Origin": other}):
            pass
    with socket_of(stack, headers={"Cookie": own["Cookie"]}) as opened:
        assert refusal(opened)[0] == 4401, "a cookie alone, from who knows where, opens nothing"
    with socket_of(stack, headers={**own, "Cookie": f"sessionid={session_of(guest, stack)}"}) as opened:
        assert refusal(opened)[0] == 4403
    with socket_of(stack, headers=own, after=newest(), poolId=pool) as opened:
        emit_events(pool)
        assert numbers(take(opened, 1)) == [0]
        from boilerhouse.core.models import Session

        Session.objects.filter(pk=cookie).delete()
        assert refusal(opened)[0] == 4401


@pytest.mark.any_database
def test_too_old_an_after_says_reset(stack, pool):
    emit_events(pool, 3)
    top = newest()
    Deployment.objects.update(events_forgotten_to=top)
    try:
        for after in (0, top - 1, top + 10**9):
            with socket_of(stack, after=after, poolId=pool) as opened:
                first = take(opened, 1)[0]
                assert (first["type"], first["id"] >= top) == ("reset", True)
                emit_events(pool)
                assert numbers(take(opened, 1)) == [0], "and goes on from there"
                top = newest()
    finally:
        Deployment.objects.update(events_forgotten_to=0)


def frames(answer: requests.Response, count: int) -> list[dict[str, str]]:
    """The first ``count`` events of a stream of server-sent events."""
    found, fields = [], {}
    for raw in answer.iter_lines():
        line = raw.decode()
        if not line and "data" in fields:
            found.append(fields)
            fields = {}
            if len(found) == count:
                return found
        elif line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value
    raise AssertionError("the stream ended")


@pytest.mark.any_database
def test_server_sent_events_resume_by_last_event_id(stack, pool):
    headers = {"Authorization": f"Bearer {stack.key}"}
    address = f"{stack.base}/api/v1/events/stream?poolId={pool}"
    start = newest()
    emit_events(pool, 5)
    with requests.get(f"{address}&after={start}", headers=headers, stream=True, timeout=30) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert (answer.headers["Cache-Control"], answer.headers["X-Accel-Buffering"]) == ("no-store", "no")
        assert answer.headers["X-Request-ID"]
        first = frames(answer, 3)
    resumed = {**headers, "Last-Event-ID": first[-1]["id"]}
    with requests.get(address, headers=resumed, stream=True, timeout=30) as answer:
        emit_events(pool, 1)
        rest = frames(answer, 3)
    assert numbers([json.loads(one["data"]) for one in (*first, *rest)]) == [0, 1, 2, 3, 4, 0]
    assert [int(one["id"]) for one in rest] == [json.loads(one["data"])["id"] for one in rest]
    for bad in ({"Last-Event-ID": "x"}, {"Last-Event-ID": "9" * 40}):
        answer = stack.call("GET", "events/stream", headers=bad)
        assert (answer.status_code, answer.headers["Content-Type"]) == (422, "application/problem+json")


@pytest.mark.any_database
def test_a_slow_reader_is_dropped_with_a_reason_and_costs_no_memory(stack, pool):
    """Its socket buffer fills; unread events stay in the database, not in the web process."""
    web = web_pid(stack)
    before = resident_kb(web)
    slow = connect(
        url(stack, poolId=pool), additional_headers={"Authorization": f"Bearer {stack.key}"}, max_queue=1, max_size=None
    )
    slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with slow, socket_of(stack, poolId=pool) as quick:
        for _ in range(60):
            emit("pool.scaled", pool_id=pool, number=0, padding="x" * 200_000)
            take(quick, 1)
        eventually(lambda: "slow reader dropped" in stack.log.read_text(), 20)
        assert resident_kb(web) - before < 80_000
    assert "slow reader dropped" in stack.log.read_text()


def resident_kb(pid: int) -> int:
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))


def test_a_reader_goes_on_across_a_restart_of_the_web_process(stack, pool):
    import os
    import signal

    start, seen = newest(), []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            with (
                contextlib.suppress(OSError, ConnectionClosed, Exception),
                socket_of(stack, after=seen[-1]["id"] if seen else start, poolId=pool) as opened,
            ):
                while not stop.is_set():
                    with contextlib.suppress(TimeoutError):
                        seen.append(json.loads(opened.recv(timeout=0.2)))
            time.sleep(0.1)

    reader = threading.Thread(target=read)
    reader.start()
    emit_events(pool, 10)
    eventually(lambda: len(seen) >= 5)
    os.kill(web_pid(stack), signal.SIGKILL)
    emit_events(pool, 10)
    try:
        eventually(lambda: len(seen) >= 20, 40)
    finally:
        stop.set()
        reader.join()
    assert numbers(seen) == [*range(10), *range(10)]


@pytest.mark.long
def test_a_silent_stream_shows_that_it_lives(stack, pool):
    with requests.get(
        f"{stack.base}/api/v1/events/stream?poolId={pool}",
        headers={"Authorization": f"Bearer {stack.key}"},
        stream=True,
        timeout=30,
    ) as answer:
        lines = [line for line, _ in zip((one for one in answer.iter_lines() if one), range(2), strict=False)]
    assert lines == [b": hello", b": still here"]


@pytest.mark.long
def test_two_hundred_sockets_at_fifty_events_a_second(stack):
    """Nothing lost or duplicated, in order, without growth; the figures are the benchmark's."""
    from bench import fan_out, figures

    before = resident_kb(web_pid(stack))
    times = fan_out.deliver(stack.base, stack.key, (200, 50, 10))
    assert len(times) == 200 * 50 * 10
    assert figures.percentile(times, 0.95) < 5 * 200
    assert resident_kb(web_pid(stack)) - before < 60_000
