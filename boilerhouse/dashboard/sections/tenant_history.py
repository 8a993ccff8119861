"""What a tenant's page says of the past: what is saved where, earlier claims, and events by claim."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from boilerhouse.core import tenant_usage
from boilerhouse.core.models import Event, TenantUsage
from boilerhouse.dashboard import badges
from boilerhouse.dashboard.templatetags.ui import REASONS
from boilerhouse.dashboard.tenant_listing import LARGE
from syncing.models import SavedState
from tenants import errors
from tenants.models import Assignment, Death
from tenants.states import AssignmentState

CLAIMS, SHOWN = 20, 10
EVENTS = 30


@dataclass(frozen=True, slots=True)
class Saves:
    """Everything that is saved of a tenant, as the last complete saves recorded it; no sink is asked."""

    rows: list[SavedState]

    @property
    def bytes(self) -> int:
        return sum(row.bytes for row in self.rows)

    @property
    def files(self) -> int:
        return sum(row.files for row in self.rows)

    @property
    def at(self) -> datetime | None:
        return max((row.saved_at for row in self.rows), default=None)


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim that has ended."""

    row: Assignment
    badge: badges.Badge
    why: str
    """Why and by whom it was ended; for a claim that failed, its error."""
    held_for: timedelta | None
    """None if the tenant never had a container."""
    death: Death | None


@dataclass(frozen=True, slots=True)
class Chapter:
    """The events of one claim; ``claim`` is None for those before the oldest known one."""

    claim: Assignment | None
    events: list[Event]


def saves_of(tenant_id: str) -> Saves:
    rows = SavedState.objects.current().filter(tenant_id=tenant_id).select_related("mapping__spec")
    return Saves(list(rows.order_by("container_path", "location")))


def claims_of(tenant_id: str) -> list[Assignment]:
    """The newest claims, newest first, each with its death if its container died."""
    rows = Assignment.objects.filter(tenant_id=tenant_id).select_related("death")
    return list(rows.defer(*LARGE, "death__log").order_by("-created_at")[:CLAIMS])


def death_of(claim: Assignment | None) -> Death | None:
    return getattr(claim, "death", None)


def ended(claims: Sequence[Assignment]) -> list[Claim]:
    """The newest that have ended."""
    return [_claim(row) for row in claims if row.state == AssignmentState.ENDED][:SHOWN]


def chapters(events: Iterable[Event], claims: Sequence[Assignment]) -> list[Chapter]:
    """The events, newest first, grouped by the claim during which they happened."""
    result: list[Chapter] = []
    for event in events:
        claim = next((one for one in claims if one.created_at <= event.created_at), None)
        if not result or result[-1].claim != claim:
            result.append(Chapter(claim, []))
        result[-1].events.append(event)
    return result


def usage_of(tenant_id: str) -> tuple[TenantUsage, list[TenantUsage]]:
    """What the tenant used in this month, and on each day of it, newest first."""
    month = tenant_usage.this_month()
    whole = tenant_usage.of_month(month).filter(tenant_id=tenant_id).first()
    days = tenant_usage.of_month(month, TenantUsage.Period.DAY).filter(tenant_id=tenant_id)
    return whole or TenantUsage(tenant_id=tenant_id, start=month), list(days.order_by("-start"))


def _claim(row: Assignment) -> Claim:
    death = death_of(row)
    if not row.was_assigned:
        words = errors.OUTCOMES.get(row.outcome)
        why = row.outcome_detail or str(getattr(words, "__doc__", "") or row.outcome)
        return Claim(row, badges.Badge("error", "Claim failed"), why, None, death)
    is_discarded = row.outcome == "discarded"
    badge = badges.Badge("warn", "Discarded") if is_discarded else badges.Badge("idle", "Released")
    since, until = row.assigned_at, row.held_until or row.ended_at
    return Claim(row, badge, ended_why(row), until - since if since and until else None, death)


def ended_why(row: Assignment) -> str:
    """``inactive for longer than its pool allows``, ``by admin``, or nothing if neither is known."""
    if reason := REASONS.get(row.reason):
        return reason
    kind, _, name = row.released_by.partition(" ")
    return f"by {name if kind == 'user' else row.released_by}" if row.released_by else ""
