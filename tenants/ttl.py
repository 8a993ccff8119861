"""The absolute end of a claim: at ``endsAt`` the controller releases the tenant, however active it is."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from django.db.models.functions import Now

from boilerhouse.core import audit, clock
from boilerhouse.core.bounds import TEN_YEARS_MS
from boilerhouse.core.events import recording
from boilerhouse.process.steps import each
from tenants import errors, releases, validation
from tenants.models import Assignment
from tenants.states import AssignmentState, ReleaseReason

MAX_TTL_MS = TEN_YEARS_MS
HELD = (AssignmentState.PENDING, AssignmentState.ASSIGNED)


def end_of(ttl_ms: int | None) -> datetime | None:
    """When a claim with this time to live ends, counted from now; None: never."""
    return None if ttl_ms is None else clock.now() + timedelta(milliseconds=ttl_ms)


def set_ttl(tenant_id: str, ttl_ms: int | None, *, only_longer: bool = False) -> datetime | None:
    """Let the tenant's claim end ``ttl_ms`` from now; None: never. Returns when it now ends.

    ``only_longer`` keeps a later end, or none. 0 ends it in the controller's next round. Raises Invalid, NotAssigned,
    Releasing.
    """
    validation.check_tenant_id(tenant_id)
    with recording():
        row = Assignment.objects.live().select_for_update(of=("self",), no_key=True).filter(tenant_id=tenant_id).first()
        if row is None or row.state not in HELD:
            raise errors.Releasing if row is not None and row.state == AssignmentState.RELEASING else errors.NotAssigned
        ends_at = end_of(ttl_ms)
        if only_longer and (row.ends_at is None or (ends_at is not None and ends_at <= row.ends_at)):
            return row.ends_at
        Assignment.objects.filter(pk=row.pk).update(ends_at=ends_at)
        audit.record("tenant.ttl", tenant_id, before={"endsAt": row.ends_at}, after={"endsAt": ends_at})
        return ends_at


def end_overdue() -> int:
    """Release the tenants whose claim has reached its end."""
    rows = Assignment.objects.filter(state=AssignmentState.ASSIGNED, ends_at__lte=Now())
    return each(list(rows.values_list("pk", "end_discards")), lambda row: _end(*row))


def _end(pk: UUID, discards: bool) -> bool:
    overdue = Assignment.objects.filter(pk=pk, ends_at__lte=Now())  # it may have been extended meanwhile
    return releases.fence(overdue, discard=discards, reason=ReleaseReason.EXPIRED)
