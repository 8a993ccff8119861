"""One pool of 10, 100 and 250 containers: what a warm claim costs, what 250 idle ones cost, 40 claims/s on them."""

from __future__ import annotations

import statistics
import subprocess
import time
from functools import partial
from itertools import cycle, islice
from typing import Any

from bench import bare, figures, rest
from bench.load import Tenants, by_chance
from bench.server import Server, pss_mb

SIZES, CLAIMS, WARM_UP = (10, 100, 250), 25, 3
IDLE_S = 10.0
RATE, RATE_S = 40.0, 4.0


def measure(server: Server, *, quick: bool = False, sizes: tuple[int, ...] = SIZES) -> dict[str, Any]:
    """The last size stands idle for a while if it is the largest that is measured anywhere."""
    sizes = (10, 60) if quick else sizes
    tenants = Tenants(server, "scale")
    rounds: dict[int, tuple[list[float], list[float]]] = {}
    found: dict[str, Any] = {}
    for size in sizes:
        tenants.release_all()
        tenants.size(size, size)
        if size == SIZES[-1]:
            found["idle"] = _idle(server, size)
        if size == sizes[-1]:
            found["agents"] = {"containers": size, "pssKb": _agent_pss_kb(tenants)}
        rounds[size] = _one_by_one(tenants, min(size, CLAIMS + WARM_UP))
    tenants.expect_warm()
    found["claim"] = figures.beside(
        figures.of([ours for ours, _ in rounds.values()]), figures.of([lone for _, lone in rounds.values()])
    )
    found["claimAt"] = {str(size): figures.of([ours]) for size, (ours, _) in rounds.items()}
    seconds = 0.4 if quick else RATE_S
    times = by_chance(RATE, seconds, tenants.prepare, windows=4)
    tenants.expect_warm()
    with bare.scratch() as directory:
        lone = by_chance(RATE, seconds, bare.claims(server.runtime, tenants.names(), directory), lanes=16)
    found["fortyPerSecond"] = figures.beside(figures.of(times), figures.of(lone))
    tenants.end()
    return found


def _one_by_one(tenants: Tenants, count: int) -> tuple[list[float], list[float]]:
    """Claims by one client, first-time tenants; one bare claim after each. The first few warm up."""
    ours, lone, runtime = [], [], tenants.server.runtime
    with bare.scratch() as directory:
        for name in islice(cycle(tenants.names()), count):
            ours.append(bare.timed(lambda: tenants.claim(config=bare.CONFIG, secrets=bare.SECRETS)))
            lone.append(bare.timed(partial(bare.claim, runtime, name, directory)))
    return ours[WARM_UP:], lone[WARM_UP:]


def _idle(server: Server, containers: int) -> dict[str, Any]:
    """Nobody asks for anything: processor time and memory by process, and how long comparing with the engine takes."""
    from pools import host, reconcile
    from tenants import upkeep

    time.sleep(3)
    processes = rest.by_kind(server, IDLE_S)
    compared, listed = [], []
    for _ in range(7):
        compared.append(bare.timed(lambda: _expect_nothing(reconcile.find_drift(upkeep.held_containers()))))
        listed.append(bare.timed(lambda: server.runtime.list(host.labels())))
    reconciling = figures.beside(figures.of([compared[2:]]), figures.of([listed[2:]]))
    return {"containers": containers, "seconds": IDLE_S, "processes": processes, "reconcile": reconciling}


def _agent_pss_kb(tenants: Tenants) -> float:
    """The mean PSS of process 1 of the containers."""
    asked = ["docker", "inspect", "-f", "{{.State.Pid}}", *tenants.names()]
    pids = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.split()
    return round(statistics.mean(1024 * pss_mb(int(pid)) for pid in pids), 1)


def _expect_nothing(drift: list[Any]) -> None:
    if drift:
        raise SystemExit(f"rows and engine differ: {drift[:3]}")
