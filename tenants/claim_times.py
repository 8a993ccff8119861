"""Latencies of claims."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from django.db.models import Count, F, Q, Window
from django.db.models.functions import RowNumber

from boilerhouse.core import clock
from tenants.models import Assignment
from tenants.states import Source

LAST = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class ClaimTimes:
    """Of all claims assigned within the last hour."""

    count: int
    warm: int
    cold: int
    p50_ms: int | None
    """None if there was no claim."""
    p99_ms: int | None


@dataclass(frozen=True, slots=True)
class PoolClaims:
    """Of the claims of one pool assigned within the last hour."""

    count: int
    cold: int
    p95_ms: int | None = None

    @property
    def cold_percent(self) -> int:
        return round(100 * self.cold / self.count) if self.count else 0


NO_CLAIMS = PoolClaims(0, 0)


def by_pool() -> dict[str, PoolClaims]:
    """By pool id; pools without a claim are left out. Takes one query, however many pools and claims."""
    rows = Assignment.objects.filter(assigned_at__gt=clock.now() - LAST, latency_ms__isnull=False)
    ranked = rows.annotate(
        among=Window(Count("pk"), partition_by="pool_id"),
        cold=Window(Count("pk", filter=Q(source=Source.COLD)), partition_by="pool_id"),
        rank=Window(RowNumber(), order_by=["latency_ms", "pk"], partition_by="pool_id"),
    ).filter(rank=F("among") * 95 / 100 + 1)
    times = ranked.values_list("pool_id", "among", "cold", "latency_ms")
    return {pool_id: PoolClaims(count, cold, p95_ms) for pool_id, count, cold, p95_ms in times}


def of_last_hour() -> ClaimTimes:
    rows = Assignment.objects.filter(assigned_at__gt=clock.now() - LAST, latency_ms__isnull=False)
    counted = rows.aggregate(
        count=Count("pk"),
        warm=Count("pk", filter=Q(source=Source.WARM)),
        cold=Count("pk", filter=Q(source=Source.COLD)),
    )
    times = rows.order_by("latency_ms").values_list("latency_ms", flat=True)

    def percentile(percent: int) -> int | None:
        position = min(counted["count"] - 1, counted["count"] * percent // 100)
        return next(iter(times[position : position + 1]), None) if counted["count"] else None

    return ClaimTimes(**counted, p50_ms=percentile(50), p99_ms=percentile(99))
