"""What the processes take while nobody asks for anything: memory, processor time, database connections."""

from __future__ import annotations

import time
from typing import Any

from bench.server import Server, pss_mb

SETTLE_S, LOOK_S = 12.0, 10.0
"""A thread of the worker closes its connection after ten seconds without work."""


def measure(server: Server, *, quick: bool = False) -> dict[str, Any]:
    """A deployment without pools."""
    time.sleep(SETTLE_S)
    return {
        "containers": 0,
        "processes": by_kind(server, LOOK_S / 2 if quick else LOOK_S),
        "connections": _connections(),
    }


def by_kind(server: Server, seconds: float) -> dict[str, dict[str, float]]:
    """By kind of process: how many, their PSS in MB, and their share of a processor in per cent, over ``seconds``."""
    before, began = server.cpu_s(), time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - began
    rows: dict[str, dict[str, float]] = {}
    for (kind, pid), spent in server.cpu_s().items():
        row = rows.setdefault(kind, {"processes": 0, "cpuPercent": 0.0, "memoryMb": 0.0})
        row["processes"] += 1
        row["cpuPercent"] += 100 * (spent - before.get((kind, pid), 0.0)) / took
        row["memoryMb"] += pss_mb(pid)
    return {kind: {name: round(value, 1) for name, value in row.items()} for kind, row in sorted(rows.items())}


def _connections() -> int | None:
    """Of the deployment's processes to PostgreSQL; None on SQLite, where a connection is an open file."""
    from django.db import connection

    if connection.vendor != "postgresql":
        return None
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return int(cursor.fetchone()[0])


def table(found: dict[str, Any]) -> list[str]:
    """A line per kind of process and one for all of ours; S3 is no part of the product."""
    rows = [f"{'idle containers: ' + str(found['containers']):<34}{'processes':>10}{'CPU':>10}{'memory':>12}"]
    ours = [one for kind, one in found["processes"].items() if kind != "S3"]
    total = {name: sum(one[name] for one in ours) for name in ("processes", "cpuPercent", "memoryMb")}
    for kind, one in [*found["processes"].items(), ("all but S3", total)]:
        cpu, memory = f"{one['cpuPercent']:.1f} %", f"{one['memoryMb']:.0f} MB"
        rows.append(f"  {kind:<32}{one['processes']:>10.0f}{cpu:>10}{memory:>12}")
    if found.get("connections") is not None:
        rows.append(f"  {'database connections':<32}{found['connections']:>10}")
    return rows
