"""Steps over sinks: probes, and saves that a sink refused."""

from __future__ import annotations

from collections.abc import Collection

from boilerhouse.core import audit
from boilerhouse.core.events import recording
from boilerhouse.process.steps import each
from syncing import services as syncing
from syncing.models import SyncSpec
from tenants import releases
from tenants.models import Assignment
from tenants.states import AssignmentState


def probe_sink(spec_id: str, why: str = "") -> None:
    """Probe a spec's sink: after a change, periodically, or for a waiting request."""
    spec = SyncSpec.objects.select_related("credential").filter(pk=spec_id).first()
    if spec is not None:
        syncing.probe(spec, is_changed=why == syncing.CHANGED, is_periodic=why == syncing.PERIODIC)


def retry_saves(spec_id: str) -> int:
    """Retry failed saves immediately in every pool that saves to this spec's place or with its credential."""
    spec = SyncSpec.objects.select_related("credential").filter(pk=spec_id).first()
    if spec is None:
        return 0
    pools = {other.pool_id for other in syncing.sharing(spec)}
    rows = Assignment.objects.filter(state=AssignmentState.RELEASE_FAILED, pool_id__in=pools)
    return each(rows, releases.retry)


def retry_saves_of(tenant_ids: Collection[str]) -> int:
    """Retry these tenants' failed saves immediately, in the caller's transaction. Returns how many there were."""
    rows = Assignment.objects.filter(state=AssignmentState.RELEASE_FAILED, tenant_id__in=tenant_ids)
    return sum(_retry_recorded(row) for row in rows)


def _retry_recorded(assignment: Assignment) -> bool:
    with recording():
        moved = releases.retry(assignment)
        if moved:
            audit.record("tenant.retry_save", assignment.tenant_id)
    return moved
