"""What is said of many measured times: percentiles over all rounds, and how far the rounds were apart."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


def percentile(times: Sequence[float], share: float) -> float:
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def of(rounds: Sequence[Sequence[float]], **more: Any) -> dict[str, Any]:
    """``n``, ``p50Ms``, ``p95Ms``, ``p99Ms``, ``maxMs`` of all times; ``spread``: lowest and highest of the rounds."""
    rounds = [one for one in rounds if one]
    times = [time for one in rounds for time in one]
    found: dict[str, Any] = {"n": len(times), "rounds": len(rounds)}
    spread: dict[str, list[float]] = {}
    for name, share in (("p50Ms", 0.5), ("p95Ms", 0.95), ("p99Ms", 0.99)):
        found[name] = round(_at(times, share), 1)
        each = [_at(one, share) for one in rounds]
        spread[name] = [round(min(each), 1), round(max(each), 1)]
    return {**found, "maxMs": round(max(times), 1), "spread": spread, **more}


def _at(times: Sequence[float], share: float) -> float:
    return statistics.median(times) if share == 0.5 else percentile(times, share)


@dataclass(frozen=True, slots=True)
class Margin:
    """The time allowed for something: ``factor`` times that of the bare things, plus ``ms``."""

    factor: float
    ms: float

    def of(self, bare_ms: float) -> float:
        return self.factor * bare_ms + self.ms


TRANSFER, RELEASE = Margin(1.15, 80), Margin(1.2, 60)


def beside(found: dict[str, Any], bare: dict[str, Any]) -> dict[str, Any]:
    """The figures with those of the bare thing, and the ratio of the medians."""
    ratio = found["p50Ms"] / bare["p50Ms"] if bare["p50Ms"] else 0.0
    return {**found, "bare": bare, "ratioP50": round(ratio, 2)}
