"""Latencies of claims."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import timedelta

from django.db.models import Count

from boilerhouse.core import clock
from tenants.models import Assignment, AssignmentQuerySet
from tenants.percentiles import percentile
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
    times: dict[str, Counter[int]] = defaultdict(Counter)
    cold: Counter[str] = Counter()
    rows = _of_last_hour().values_list("pool_id", "source", "latency_ms").annotate(number=Count("pk"))
    for pool_id, source, ms, number in rows:
        times[pool_id][ms] += number
        cold[pool_id] += number if source == Source.COLD else 0
    return {pk: PoolClaims(counts.total(), cold[pk], percentile(counts, 95)) for pk, counts in times.items()}


def of_last_hour() -> ClaimTimes:
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    for source, ms, number in _of_last_hour().values_list("source", "latency_ms").annotate(number=Count("pk")):
        counts[source][ms] += number
    times = sum(counts.values(), Counter[int]())
    return ClaimTimes(
        count=times.total(), warm=counts[Source.WARM].total(), cold=counts[Source.COLD].total(),
        p50_ms=percentile(times, 50), p99_ms=percentile(times, 99),
    )  # fmt: skip


def _of_last_hour() -> AssignmentQuerySet:
    return Assignment.objects.filter(assigned_at__gt=clock.now() - LAST, latency_ms__isnull=False).order_by()
