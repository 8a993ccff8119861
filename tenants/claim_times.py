"""Latencies of claims."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from django.db.models import Count, Q

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
