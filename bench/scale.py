"""One pool of 10, 100 and 250 containers: what a warm claim costs, what 250 idle ones cost, 40 claims/s on them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from bench import bare, figures
from bench.load import Tenants, by_chance
from bench.server import Server

SIZES, CLAIMS, WARM_UP = (10, 100, 250), 25, 3
IDLE_S = 10.0
RATE, RATE_S = 40.0, 4.0
TICKS = os.sysconf("SC_CLK_TCK")


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
        lone = by_chance(RATE, seconds, bare.claims(server.runtime, _names(tenants), directory), lanes=16)
    found["fortyPerSecond"] = figures.beside(figures.of(times), figures.of(lone))
    tenants.end()
    return found


def _names(tenants: Tenants) -> list[str]:
    from uuid import UUID

    from pools import lifecycle

    return [lifecycle.runtime_name(UUID(container)) for container in tenants.held]


def _one_by_one(tenants: Tenants, count: int) -> tuple[list[float], list[float]]:
    """Claims by one client, first-time tenants; one bare claim after each. The first few warm up."""
    ours, lone = [], []
    with bare.scratch() as directory:
        for _ in range(count):
            began = time.perf_counter()
            tenants.claim(config=bare.CONFIG, secrets=bare.SECRETS)
            ours.append((time.perf_counter() - began) * 1000)
            lone.append(bare.timed(lambda: bare.claim(tenants.server.runtime, _names(tenants)[-1], directory)))
    return ours[WARM_UP:], lone[WARM_UP:]


def _idle(server: Server, containers: int) -> dict[str, Any]:
    """Nobody asks for anything: processor time and memory by process, and how long comparing with the engine takes."""
    from pools import host, reconcile
    from tenants import upkeep

    time.sleep(3)
    before = {pid: _cpu_s(pid) for _, pid in server.processes()}
    began = time.monotonic()
    time.sleep(IDLE_S)
    took = time.monotonic() - began
    rows: dict[str, dict[str, float]] = {}
    for kind, pid in server.processes():
        row = rows.setdefault(kind, {"processes": 0, "cpuPercent": 0.0, "memoryMb": 0.0})
        row["processes"] += 1
        row["cpuPercent"] += 100 * (_cpu_s(pid) - before.get(pid, 0.0)) / took
        row["memoryMb"] += _pss_mb(pid)
    compared, listed = [], []
    for _ in range(7):
        compared.append(bare.timed(lambda: _expect_nothing(reconcile.find_drift(upkeep.held_containers()))))
        listed.append(bare.timed(lambda: server.runtime.list(host.labels())))
    shown = {kind: {name: round(value, 1) for name, value in row.items()} for kind, row in sorted(rows.items())}
    reconciling = figures.beside(figures.of([compared[2:]]), figures.of([listed[2:]]))
    return {"containers": containers, "seconds": IDLE_S, "processes": shown, "reconcile": reconciling}


def _expect_nothing(drift: list[Any]) -> None:
    if drift:
        raise SystemExit(f"rows and engine differ: {drift[:3]}")


def _cpu_s(pid: int) -> float:
    """Of the process itself, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _pss_mb(pid: int) -> float:
    """Memory, what is shared counted in parts."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024


def table(found: dict[str, Any]) -> list[str]:
    head = f"{'idle containers: ' + str(found['idle']['containers']):<34}{'processes':>10}{'CPU':>10}{'memory':>12}"
    rows = [head]
    for kind, one in found["idle"]["processes"].items():
        cpu, memory = f"{one['cpuPercent']:.1f} %", f"{one['memoryMb']:.0f} MB"
        rows.append(f"  {kind:<32}{one['processes']:>10.0f}{cpu:>10}{memory:>12}")
    return rows
