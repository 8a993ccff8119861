"""What lists of all tenants sort by, kept in the tenants' own rows: a hundred thousand tenants are sorted by an index.

A row may be a minute late. Pages show what is true now, from the rows that these values come from.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

from django.db.models import BigIntegerField, Max, OuterRef, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce

from boilerhouse.core.models import TenantUsage
from syncing.models import SavedState
from tenants.models import Tenant


def refresh(requests: Mapping[str, datetime | None]) -> None:
    """Bring the rows of these tenants up to date; each with when it was last active, if that is known."""
    saved = saved_states(requests)
    changed = []
    for row in Tenant.objects.filter(pk__in=list(requests)).only("pk", "seen_at", "saved_at", "saved_bytes"):
        before = row.seen_at, row.saved_at, row.saved_bytes
        row.seen_at = max(row.seen_at, requests[row.pk] or row.seen_at)
        row.saved_at, row.saved_bytes = saved.get(row.pk, (None, 0))
        if before != (row.seen_at, row.saved_at, row.saved_bytes):
            changed.append(row)
    Tenant.objects.bulk_update(changed, ["seen_at", "saved_at", "saved_bytes"])


def saved_states(tenant_ids: Collection[str]) -> dict[str, tuple[datetime, int]]:
    """By tenant: the time of its last complete save, and the bytes of its saved state."""
    rows = SavedState.objects.current().filter(tenant_id__in=list(tenant_ids)).values("tenant_id")
    totals = rows.annotate(at=Max("saved_at"), size=Sum("bytes")).order_by()
    return {row["tenant_id"]: (row["at"], row["size"]) for row in totals}


def with_state_bytes(rows: QuerySet[TenantUsage]) -> QuerySet[TenantUsage]:
    """Each with ``state_bytes``, the size of its tenant's saved state now."""
    saves = SavedState.objects.current().filter(tenant_id=OuterRef("tenant_id")).order_by().values("tenant_id")
    size = Subquery(saves.annotate(size=Sum("bytes")).values("size"), output_field=BigIntegerField())
    return rows.annotate(state_bytes=Coalesce(size, 0))
