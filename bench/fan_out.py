"""Events to many WebSockets: how long from commit to client, whether all arrive, and what it costs the web process."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from websockets.asyncio.client import connect
from websockets.sync.client import connect as connect_plainly

from bench import figures
from bench.server import ROOT, Server

CLIENTS, PER_SECOND, SECONDS = 200, 50, 10
ALONE = (1, 10, 3)
TEXT = json.dumps({"payload": {"padding": "x" * 300}})[:-2]


def measure(server: Server) -> dict[str, Any]:
    """Write events in this process, read them with 200 sockets; then the same through a bare WebSocket server.

    One event for one socket beside a bare echo.
    """
    load = (CLIENTS, PER_SECOND, SECONDS)
    alone = deliver(server.api.base, server.api.key, ALONE)
    before = server.memory_kb()
    times = deliver(server.api.base, server.api.key, load)
    after = server.memory_kb()
    with _bare_server() as port:
        broadcast, echo = _broadcast(port, load), _echo(port)
    found = figures.beside(figures.of([times]), figures.of([broadcast]))
    lone = figures.beside(figures.of([alone]), figures.of([echo]))
    return {**found, "clients": CLIENTS, "perSecond": PER_SECOND, "memoryGrowthKb": after - before, "alone": lone}


def deliver(base: str, key: str, load: tuple[int, int, int]) -> list[float]:
    """Milliseconds from commit to each client; ``load``: sockets, events per second, seconds.

    Ends the bench when any event is lost, double or out of order.
    """
    from django.db import connection

    from boilerhouse.core.events import emit

    pool = f"fan-{uuid.uuid4().hex[:8]}"

    def end() -> None:
        connection.close()  # the writing thread's own

    url = f"{base.replace('http', 'ws')}/ws/events?poolId={pool}"
    headers = {"Authorization": f"Bearer {key}"}
    return _fan_out(url, headers, lambda number: emit("pool.scaled", pool_id=pool, number=number), end, load)


def _number_of_event(text: str) -> int:
    return int(json.loads(text)["payload"]["number"])


@contextmanager
def _bare_server() -> Iterator[int]:
    """A server that does nothing but pass messages on; its port."""
    from boilerhouse.operations.supervisor import free_port

    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "bench.broadcast", str(port)], cwd=ROOT)
    try:
        until = time.monotonic() + 10
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


def _broadcast(port: int, load: tuple[int, int, int]) -> list[float]:
    with connect_plainly(f"ws://127.0.0.1:{port}/say") as said:
        return _fan_out(
            f"ws://127.0.0.1:{port}/", {}, lambda number: said.send(f'{TEXT}, "number": {number}}}}}'),
            lambda: None, load,
        )  # fmt: skip


def _echo(port: int) -> list[float]:
    """Milliseconds there and back, a few times a second as the events are."""
    _, per_second, seconds = ALONE
    times = []
    with connect_plainly(f"ws://127.0.0.1:{port}/echo") as opened:
        for _ in range(per_second * seconds):
            time.sleep(1 / per_second)
            began = time.perf_counter()
            opened.send(TEXT)
            opened.recv()
            times.append((time.perf_counter() - began) * 1000)
    return times


def _fan_out(
    url: str,
    headers: dict[str, str],
    say: Callable[[int], object],
    end: Callable[[], object],
    load: tuple[int, int, int],
) -> list[float]:
    """Milliseconds from when each was said to when each client had it."""
    clients, per_second, seconds = load
    count = per_second * seconds
    said: dict[int, float] = {}
    arrived: list[list[tuple[int, float]]] = []

    def write() -> None:
        began = time.perf_counter()
        try:
            for number in range(count):
                time.sleep(max(0.0, began + number / per_second - time.perf_counter()))
                say(number)
                said[number] = time.perf_counter()
        finally:
            end()

    async def read(ready: asyncio.Semaphore) -> list[tuple[int, float]]:
        seen = []
        async with connect(url, additional_headers=headers, open_timeout=60) as opened:
            ready.release()
            while len(seen) < count:
                text = await asyncio.wait_for(opened.recv(), 60)
                seen.append((_number_of_event(str(text)), time.perf_counter()))
        return seen

    async def run() -> None:
        ready = asyncio.Semaphore(0)
        tasks = [asyncio.create_task(read(ready)) for _ in range(clients)]
        for _ in range(clients):
            await ready.acquire()
        await asyncio.sleep(1)
        writer = threading.Thread(target=write)
        writer.start()
        arrived.extend(await asyncio.gather(*tasks))
        writer.join()

    asyncio.run(run())
    wrong = sum([number for number, _ in seen] != list(range(count)) for seen in arrived)
    if wrong:
        raise SystemExit(f"{wrong} of {clients} sockets did not get exactly the events")
    return [max(0.0, at - said[number]) * 1000 for seen in arrived for number, at in seen]


def table(found: dict[str, Any]) -> list[str]:
    bare, alone = found["bare"], found["alone"]
    echo = alone["bare"]
    return [
        f"events to {found['clients']} sockets at {found['perSecond']}/s: commit to client p50 {found['p50Ms']} ms, p95"
        f" {found['p95Ms']} ms, p99 {found['p99Ms']} ms; {found['n']} delivered, none lost",
        f"a bare WebSocket server: p50 {bare['p50Ms']} ms, p95 {bare['p95Ms']} ms, p99 {bare['p99Ms']} ms; the web"
        f" process grew by {found['memoryGrowthKb']} kB",
        f"one event for one socket: p50 {alone['p50Ms']} ms, p95 {alone['p95Ms']} ms; a bare WebSocket echo, there and"
        f" back: p50 {echo['p50Ms']} ms, p95 {echo['p95Ms']} ms",
    ]
