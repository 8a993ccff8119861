"""Failed runs: how many, and how many of them nothing has made up for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Exists, OuterRef, Q

from boilerhouse.core import clock
from boilerhouse.dashboard.bounded_counts import up_to
from syncing.models import SyncRun
from syncing.querysets import SyncRunQuerySet
from syncing.states import Direction, Trigger
from tenants.models import Assignment

AT_SINK = (Trigger.BACKUP, Trigger.ERASE)
"""Runs that only another of the same kind makes up for."""


@dataclass(frozen=True, slots=True)
class Failures:
    """Of the last 24 hours. Counts as text, because large ones are not exact."""

    failed: str
    unrepaired: str
    since: datetime
    """A whole minute, so that the link to the list of them changes no more often."""

    @property
    def are_repaired(self) -> bool:
        return self.unrepaired == "0"

    @property
    def words(self) -> str:
        """``18 failed, all repaired``; ``18 failed, 2 not repaired``; empty if none failed."""
        if self.failed == "0":
            return ""
        if self.are_repaired:
            return f"{self.failed} failed, {'repaired' if self.failed == '1' else 'all repaired'}"
        if self.failed == self.unrepaired:
            return f"{self.failed} failed"
        return f"{self.failed} failed, {self.unrepaired} not repaired"


def of_last_day() -> Failures:
    since = clock.now().replace(second=0, microsecond=0) - timedelta(hours=24)
    recent = SyncRun.objects.failed().filter(finished_at__gte=since)
    failed = up_to(recent)
    return Failures(failed, "0" if failed == "0" else up_to(unrepaired(recent)), since)


def unrepaired(failed: SyncRunQuerySet) -> SyncRunQuerySet:
    """Those without a later success of the same tenant, spec and direction, except saves of claims that have ended.

    A claim ends only when its state is saved or discarded.
    """
    later = SyncRun.objects.succeeded().filter(
        tenant_id=OuterRef("tenant_id"), spec=OuterRef("spec"), direction=OuterRef("direction"),
        created_at__gt=OuterRef("created_at"),
    )  # fmt: skip
    claim = Assignment.objects.live().filter(tenant_id=OuterRef("tenant_id"), generation=OuterRef("generation"))
    at_sink = Q(trigger__in=AT_SINK)
    is_open = (at_sink & ~Exists(later.filter(trigger=OuterRef("trigger")))) | (~at_sink & ~Exists(later))
    return failed.filter(is_open).filter(at_sink | ~Q(direction=Direction.UPLOAD) | Exists(claim))
