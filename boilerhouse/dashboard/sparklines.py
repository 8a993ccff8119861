"""A pool's last hour as a sparkline: how many of its containers were claimed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from django.core.cache import cache
from django.utils import timezone

from boilerhouse.dashboard import time_steps
from pools.models import PoolUsage

SPAN = timedelta(hours=1)
BUCKETS = 48
WIDTH, HEIGHT = 96.0, 24.0
KEPT_S = 15
"""The sampling interval of usage."""
MAX_POOLS = 100


@dataclass(frozen=True, slots=True)
class Sparkline:
    points: str
    """For ``polyline``; empty without samples."""
    description: str


NOTHING = Sparkline("", "no samples yet")


def of_pools(sizes: dict[str, int]) -> dict[str, Sparkline]:
    """By pool id; ``sizes`` is the top of each line. Read once per sampling interval and process."""
    if not sizes or len(sizes) > MAX_POOLS:
        return {}
    cached: dict[str, Sparkline] | None = cache.get("sparks")
    if cached is None:
        cached = _read(sizes)
        cache.set("sparks", cached, KEPT_S)
    return cached


def _read(sizes: dict[str, int]) -> dict[str, Sparkline]:
    step = SPAN / BUCKETS
    start = time_steps.floor(timezone.now() - SPAN, step)
    peaks: dict[str, dict[int, int]] = {}
    rows = PoolUsage.objects.filter(at__gte=start, pool_id__in=sizes).values_list("pool_id", "at", "claimed")
    for pool_id, at, claimed in rows:
        slot = int((at - start) / step)
        slots = peaks.setdefault(pool_id, {})
        slots[slot] = max(slots.get(slot, 0), claimed)
    return {pool_id: _spark(slots, max(1, sizes[pool_id])) for pool_id, slots in peaks.items()}


def _spark(slots: dict[int, int], top: int) -> Sparkline:
    points = [(WIDTH * slot / BUCKETS, HEIGHT * (1 - min(1.0, value / top))) for slot, value in sorted(slots.items())]
    low, high = min(slots.values()), max(slots.values())
    description = f"{high} claimed all the time" if low == high else f"{low} to {high} claimed"
    return Sparkline(" ".join(f"{x:.1f},{y:.1f}" for x, y in points), description)
