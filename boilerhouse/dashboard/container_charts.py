"""Charts of one container's CPU and memory, each with its limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from boilerhouse.dashboard import charts
from boilerhouse.dashboard.templatetags.ui import size

Sample = tuple[datetime, int, int]
"""Time, CPU time in ns since the container's start, bytes of memory."""


@dataclass(frozen=True, slots=True)
class Limits:
    cpus: float
    memory_mb: int


def of(samples: Sequence[Sample], limits: Limits, period: tuple[datetime, datetime]) -> list[charts.Chart]:
    cores: list[tuple[datetime, float]] = []
    for (before, used, _), (at, total, _) in pairwise(samples):
        seconds = (at - before).total_seconds()
        if seconds > 0 and total >= used:  # a restarted engine counts from zero
            cores.append((at, (total - used) / 1e9 / seconds))
    memory = [(at, float(amount)) for at, _, amount in samples]
    every = max((later[0] - earlier[0] for earlier, later in pairwise(samples[-3:])), default=timedelta(0))
    cpus = f"{limits.cpus:g} core{'' if limits.cpus == 1 else 's'}"
    return [
        charts.chart(
            "CPU", "1h", {"used": cores}, lambda value: f"{value:.2f} cores", least=0.1, unit="cores", period=period,
            limit=(limits.cpus, cpus), every=every, now=f"{cores[-1][1]:.2f} of {cpus}" if cores else "",
        ),
        charts.chart(
            "Memory", "1h", {"in use": memory}, lambda value: size(int(value)), least=1_000_000, unit="bytes",
            period=period, limit=(float(limits.memory_mb << 20), f"{limits.memory_mb} MB"), every=every,
            now=f"{size(samples[-1][2])} of {limits.memory_mb} MB" if samples else "",
        ),
    ]  # fmt: skip
