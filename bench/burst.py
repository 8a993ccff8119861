"""Claims at once, and at half the rate at which a pool refills."""

from __future__ import annotations

import threading
import time
from typing import Any

from bench import bare, figures
from bench.load import Act, Tenants, at_once, by_chance
from bench.server import Server

HALF_S, HOLD_S = 60.0, 2.0


def measure(server: Server, *, quick: bool = False, most: bool = True) -> dict[str, Any]:
    """Ten on 10 warm, fifty on 50, twenty on 10 and, if ``most``, a hundred on 20 warm of a pool of at most 40."""
    tenants, found = Tenants(server, "burst"), dict[str, Any]()
    for name, warm, bound, count, rounds in (
        ("tenAtOnce", 10, 10, 10, 2 if quick else 4),
        ("fiftyAtOnce", 50, 50, 50, 0 if quick else 2),
        ("twentyAtOnce", 10, 20, 20, 1 if quick else 2),
        ("hundredAtOnce", 20, 40, 100, 0 if quick or not most else 1),
    ):
        times, lone = [], []
        for number in range(rounds + 1 if warm == count and rounds else rounds):
            tenants.release_all()
            tenants.sources.clear()
            tenants.size(warm, bound)
            ours = _served(tenants, count, bound)
            if warm == count:
                tenants.expect_warm()
                if number == 0:
                    continue  # it warms up
            times.append(ours)
            lone.append(_bare(tenants, count))
        if rounds:
            found[name] = figures.beside(figures.of(times, sources=dict(tenants.sources)), figures.of(lone))
        tenants.release_all()
    tenants.end()
    return found


def _bare(tenants: Tenants, count: int) -> list[float]:
    with bare.scratch() as directory:
        return at_once(count, bare.claims(tenants.server.runtime, tenants.names(), directory))


def _served(tenants: Tenants, count: int, bound: int) -> list[float]:
    """More claims than the pool may ever hold are served as those before them give back."""
    if count <= bound:
        return at_once(count, tenants.prepare)
    left = threading.Semaphore(0)

    def prepare() -> Act:
        tenants.connection()

        def act() -> None:
            tenants.claim()
            left.release()

        return act

    def give_back() -> None:
        for _ in range((count - bound) // 4):
            left.acquire()
            tenants.release()

    givers = [threading.Thread(target=give_back) for _ in range(4)]
    for giver in givers:
        giver.start()
    try:
        return at_once(count, prepare)
    finally:
        for giver in givers:
            giver.join()


def half_rate(server: Server, rate: float) -> dict[str, Any]:
    """Claims by chance at half of ``rate``, the measured refill rate, each given back after two seconds.

    The times are of those that found a warm one; ``sources`` says how many did not.
    """
    tenants = Tenants(server, "half")
    tenants.size(0, 60, min_idle=20)
    left: list[threading.Thread] = []

    def prepare() -> Act:
        tenants.connection()

        def act() -> bool:
            claimed = tenants.claim()
            leaving = threading.Thread(target=leave, args=(claimed["containerId"],))
            leaving.start()
            left.append(leaving)
            return bool(claimed["source"] == "warm")

        return act

    def leave(container: str) -> None:
        time.sleep(HOLD_S)
        tenants.release(container)

    times = by_chance(rate / 2, HALF_S, prepare, windows=3)
    for leaving in left:
        leaving.join()
    if tenants.held:
        raise SystemExit(f"{len(tenants.held)} were not given back")
    found = figures.of(times, perSecond=round(rate / 2, 1), sources=dict(tenants.sources))
    tenants.size(0, 2, min_idle=2)
    with bare.scratch() as directory:
        lone = by_chance(rate / 2, 5, bare.claims(server.runtime, tenants.names(), directory), lanes=8)
    tenants.end()
    return figures.beside(found, figures.of(lone))
