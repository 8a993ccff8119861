"""Steps over sinks: probes, and saves that a sink refused."""

from __future__ import annotations

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
