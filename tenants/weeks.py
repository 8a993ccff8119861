"""The last seven days beside the seven days before: claims, their times, and failures."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.core.cache import cache
from django.db.models import Case, Count, Q, QuerySet, Value, When

from boilerhouse.core import clock, deployment_settings
from syncing.models import SyncRun
from tenants.errors import OUTCOMES, ClaimAborted
from tenants.models import Assignment
from tenants.percentiles import percentile
from tenants.states import Source

WEEK = timedelta(days=7)
KEPT_S = 60
"""How long a process shows the same figures: they are read from every claim of two weeks."""
FAILURES = sorted(set(OUTCOMES) - {ClaimAborted.code})
"""Outcomes of claims that failed; a client that gives up has not failed."""


@dataclass(slots=True)
class Week:
    """Claims and failures of seven days."""

    times: dict[int, int] = field(default_factory=dict)
    """Claims by their duration in ms."""
    cold: int = 0
    failed_claims: int = 0
    failed_runs: int = 0

    @property
    def claims(self) -> int:
        return sum(self.times.values())

    @property
    def p95_ms(self) -> int | None:
        """None without claims."""
        return percentile(self.times, 95)

    @property
    def cold_share(self) -> float | None:
        """From 0 to 1; None without claims."""
        return self.cold / self.claims if self.claims else None


@dataclass(frozen=True, slots=True)
class Weeks:
    this: Week
    last: Week | None
    """None if nothing is known about it: the deployment or the pool is younger, or the rows are not kept so long."""


def compare(pool_id: str = "") -> Weeks:
    """The weeks of one pool, or of the deployment. At most ``KEPT_S`` seconds old."""
    cached: Weeks | None = cache.get(f"weeks:{pool_id}")
    if cached is None:
        cached = _read(pool_id, clock.now())
        cache.set(f"weeks:{pool_id}", cached, KEPT_S)
    return cached


def _read(pool_id: str, now: datetime) -> Weeks:
    this, last = Week(), Week()
    start, middle = now - 2 * WEEK, now - WEEK
    claims = Assignment.objects.filter(pool_id=pool_id) if pool_id else Assignment.objects.all()
    runs = SyncRun.objects.filter(spec__pool_id=pool_id) if pool_id else SyncRun.objects.all()

    is_recent = Case(When(assigned_at__gt=middle, then=Value(1)), default=Value(0))
    timed = claims.filter(assigned_at__gt=start, latency_ms__isnull=False, source__in=[Source.WARM, Source.COLD])
    counted = timed.annotate(recent=is_recent).order_by().values_list("recent", "source", "latency_ms")
    for recent, source, ms, number in counted.annotate(number=Count("pk")):
        week = this if recent else last
        week.times[ms] = week.times.get(ms, 0) + number
        week.cold += number if source == Source.COLD else 0
    failed = claims.filter(ended_at__gt=start, was_assigned=False, outcome__in=FAILURES)
    this.failed_claims, last.failed_claims = _halves(failed, "ended_at", middle)
    this.failed_runs, last.failed_runs = _halves(runs.failed().filter(finished_at__gt=start), "finished_at", middle)
    retention = timedelta(seconds=deployment_settings.current().retention_s["runs"])
    is_known = retention >= 2 * WEEK and claims.filter(created_at__lt=middle).exists()
    return Weeks(this, last if is_known else None)


def _halves(rows: QuerySet[Any], name: str, middle: datetime) -> tuple[int, int]:
    """How many rows are after ``middle``, and how many others there are."""
    counts = rows.aggregate(after=Count("pk", filter=Q(**{f"{name}__gt": middle})), whole=Count("pk"))
    return counts["after"], counts["whole"] - counts["after"]
