"""Sync on demand: the same restore and save, on a live container."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import structlog

from boilerhouse.core.errors import BoilerhouseError, FieldError, Invalid
from boilerhouse.core.events import recording
from boilerhouse.core.tasks import enqueue
from pools import volumes
from syncing import errors as sync_errors
from syncing import services as syncing
from syncing import transfers
from syncing.models import SyncRun
from syncing.states import Direction, SyncRunState, Trigger
from tenants import errors, validation
from tenants.models import Assignment
from tenants.site import site_of
from tenants.states import AssignmentState

log = structlog.get_logger(__name__)

DIRECTIONS = {
    "outward": (Direction.UPLOAD,),
    "inward": (Direction.DOWNLOAD,),
    "both": (Direction.UPLOAD, Direction.DOWNLOAD),
}


def begin(tenant_id: str, direction: str) -> list[SyncRun]:
    """Queue a run per spec and direction. Raises NotAssigned, ManualSyncOff, Invalid when nothing maps."""
    validation.check_tenant_id(tenant_id)
    assignment = Assignment.objects.filter(tenant_id=tenant_id, state=AssignmentState.ASSIGNED).first()
    if assignment is None or assignment.version is None or assignment.uid is None:
        raise errors.NotAssigned
    wanted = [(spec, one) for one in DIRECTIONS[direction] for spec in syncing.specs_for(assignment.pool_id, one)]
    if not wanted:
        raise Invalid(FieldError("/direction", "No mapping of this pool goes that way.", "no_mapping"))
    if not all(spec.allow_manual_trigger for spec, _ in wanted):
        raise sync_errors.ManualSyncOff
    with recording():
        site = site_of(assignment, -1, is_stopped=False)
        runs = [transfers.queue_run(spec, site, one, Trigger.MANUAL) for spec, one in wanted]
        enqueue("sync", "tenants.tasks.manual_sync", assignment.pk, assignment.generation)
    return runs


def run_queued(assignment_id: UUID, generation: int) -> None:
    """Run what is queued for this generation, in order; what its generation has left behind is cancelled."""
    rows = Assignment.objects.select_related("version").filter(pk=assignment_id, generation=generation)
    assignment = rows.first()
    if assignment is None:
        return

    def keep_going() -> bool:
        return rows.filter(state=AssignmentState.ASSIGNED).exists()

    queued = SyncRun.objects.filter(
        tenant_id=assignment.tenant_id, generation=generation, trigger=Trigger.MANUAL, state=SyncRunState.QUEUED
    )
    try:
        with volumes.locked(assignment.held_container) as lock:
            for run in queued.select_related("spec__credential").order_by("created_at", "id"):
                if not keep_going():
                    break
                try:
                    _run(run, site_of(assignment, lock, is_stopped=False), keep_going)
                except BoilerhouseError as error:
                    log.warning("manual sync failed", tenant=assignment.tenant_id, code=error.code)
    finally:
        if not keep_going():
            queued.update(state=SyncRunState.CANCELLED, error_code="cancelled", error_detail="The tenant was released.")


def _run(run: SyncRun, site: transfers.Site, keep_going: Callable[[], bool]) -> None:
    if run.direction == Direction.UPLOAD:
        transfers.save(site, [run.spec], Trigger.MANUAL, keep_going, lambda _spec: run)
        return
    findings = transfers.survey_specs([run.spec], site.tenant_id)()
    transfers.restore(site, findings, Trigger.MANUAL, keep_going, lambda _spec: run)
