"""Events to many WebSockets: how long from commit to client, whether all arrive, and what it costs the web process."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from websockets.asyncio.client import connect

CLIENTS, PER_SECOND, SECONDS = 200, 50, 20
TARGET_P95_MS = 200


def measure(
    base: str,
    key: str,
    memory_kb: Callable[[], int],
    clients: int = CLIENTS,
    per_second: int = PER_SECOND,
    seconds: int = SECONDS,
) -> dict[str, Any]:
    """Write events in this process, read them with ``clients`` sockets. Ends the bench when any is lost or double."""
    from django.db import connection

    from boilerhouse.core.events import emit

    pool, count = f"fan-{uuid.uuid4().hex[:8]}", per_second * seconds
    committed: dict[int, float] = {}
    arrived: list[list[tuple[int, float]]] = []

    def write() -> None:
        began = time.perf_counter()
        try:
            for number in range(count):
                time.sleep(max(0.0, began + number / per_second - time.perf_counter()))
                emit("pool.scaled", pool_id=pool, number=number)
                committed[number] = time.perf_counter()
        finally:
            connection.close()

    async def read(url: str, ready: asyncio.Semaphore) -> list[tuple[int, float]]:
        seen = []
        async with connect(url, additional_headers={"Authorization": f"Bearer {key}"}, open_timeout=60) as opened:
            ready.release()
            while len(seen) < count:
                text = await asyncio.wait_for(opened.recv(), 60)
                seen.append((json.loads(text)["payload"]["number"], time.perf_counter()))
        return seen

    async def run() -> None:
        url = f"{base.replace('http', 'ws')}/ws/events?poolId={pool}"
        ready = asyncio.Semaphore(0)
        tasks = [asyncio.create_task(read(url, ready)) for _ in range(clients)]
        for _ in range(clients):
            await ready.acquire()
        await asyncio.sleep(1)
        writer = threading.Thread(target=write)
        writer.start()
        arrived.extend(await asyncio.gather(*tasks))
        writer.join()

    before = memory_kb()
    asyncio.run(run())
    after = memory_kb()
    wrong = sum([number for number, _ in seen] != list(range(count)) for seen in arrived)
    if wrong:
        raise SystemExit(f"{wrong} of {clients} sockets did not get exactly the events")
    times = sorted(max(0.0, at - committed[number]) * 1000 for seen in arrived for number, at in seen)
    return {
        "clients": clients,
        "perSecond": per_second,
        "delivered": len(times),
        "p50Ms": round(times[len(times) // 2], 1),
        "p95Ms": round(times[int(len(times) * 0.95)], 1),
        "p99Ms": round(times[int(len(times) * 0.99)], 1),
        "memoryGrowthKb": after - before,
        "targetP95Ms": TARGET_P95_MS,
    }


def table(found: dict[str, Any]) -> list[str]:
    met = "met" if found["p95Ms"] <= found["targetP95Ms"] else "not met"
    return [
        f"events to {found['clients']} sockets at {found['perSecond']}/s: commit to client p50 {found['p50Ms']} ms, p95"
        f" {found['p95Ms']} ms, p99 {found['p99Ms']} ms; {found['delivered']} delivered, none lost",
        f"web process grew by {found['memoryGrowthKb']} kB; target p95 ≤ {found['targetP95Ms']} ms: {met}",
    ]
