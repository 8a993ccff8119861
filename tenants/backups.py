"""A tenant's backups: what its saves replaced, and putting one back while the tenant holds nothing."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import structlog
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from boilerhouse.core import processes
from boilerhouse.core.events import emit, recording
from boilerhouse.core.outage import DATABASE_LOST
from boilerhouse.core.recently import Recently
from boilerhouse.core.tasks import enqueue
from syncing import errors as sync_errors
from syncing import putting_back
from syncing.models import Backup, SyncRun
from syncing.states import Direction, SyncRunState, Trigger
from tenants import errors, validation
from tenants.models import Assignment, Tenant, next_generation
from tenants.syncs import LOST_AFTER, UNFINISHED

log = structlog.get_logger(__name__)


def of_tenant(tenant_id: str) -> QuerySet[Backup]:
    """What is kept of the tenant's earlier saves. Raises Invalid."""
    return Backup.objects.filter(tenant_id=validation.check_tenant_id(tenant_id))


def restore(tenant_id: str, backup_id: UUID) -> SyncRun:
    """Queue a run that puts the backup's files back at the sink; no claim begins until it has ended.

    Raises BackupNotFound, Held while the tenant holds something, RestoringBackup while another runs.
    """
    backup = of_tenant(tenant_id).select_related("spec").filter(pk=backup_id).first()
    if backup is None:
        raise errors.BackupNotFound(f"There is no backup {backup_id} of this tenant.")
    with recording():
        generation, busy_with = next_generation(tenant_id)  # locks the tenant's row, as a claim does
        if busy_with is not None:
            raise errors.RestoringBackup
        if Assignment.objects.live().filter(tenant_id=tenant_id).exists():
            raise errors.Held
        run = SyncRun.objects.create(
            spec=backup.spec,
            tenant_id=tenant_id,
            generation=generation,
            direction=Direction.UPLOAD,
            trigger=Trigger.BACKUP,
            steps=[{"backup": str(backup.pk), "containerPath": backup.container_path, "location": backup.location}],
        )
        Tenant.objects.filter(pk=tenant_id).update(backup_run=run.pk)
        enqueue("sync", "tenants.tasks.put_back", run.pk)
    return run


def put_back(run_id: UUID) -> None:
    """On a worker: run it; the tenant may claim again afterwards, whatever came of it."""
    me = processes.current()
    rows = SyncRun.objects.filter(pk=run_id)
    if not rows.filter(state=SyncRunState.QUEUED).update(
        state=SyncRunState.RUNNING, started_at=timezone.now(), owner=me
    ):
        return
    run = rows.select_related("spec").get()
    ours = rows.filter(state=SyncRunState.RUNNING, owner=me)
    structlog.contextvars.bind_contextvars(tenant=run.tenant_id, run=str(run.pk))
    emit("sync.started", **_about(run))
    try:
        backup = Backup.objects.select_related("spec__credential").filter(pk=run.steps[0]["backup"]).first()
        if backup is None:
            raise sync_errors.StateMissing("The backup has expired.")
        files, size = putting_back.put_back(run, backup, ours.exists)
    except DATABASE_LOST:
        raise  # undecided: the run is buried as interrupted, and what it had begun is taken back
    except Exception as error:  # whatever it was, the tenant must not stay shut out
        code, detail = getattr(error, "code", "failed"), getattr(error, "detail", str(error))
        log.warning("backup not restored", code=code, detail=detail[:300])
        _end(run, ours, SyncRunState.FAILED, error_code=code, error_detail=detail)
    else:
        totals = {"files": files, "bytes": size, "totalFiles": files, "totalBytes": size, "percent": 100.0}
        _end(run, ours, SyncRunState.SUCCEEDED, progress=totals)


def _end(run: SyncRun, ours: QuerySet[SyncRun], state: SyncRunState, **changes: Any) -> None:
    with recording():
        if ours.update(state=state, finished_at=timezone.now(), **changes):
            code = {"code": changes["error_code"]} if "error_code" in changes else {}
            emit("sync.failed" if code else "sync.completed", **_about(run), **code)
        Tenant.objects.filter(pk=run.tenant_id, backup_run=run.pk).update(backup_run=None)


def _about(run: SyncRun) -> dict[str, Any]:
    told = {"runId": str(run.pk), "specId": run.spec_id, "direction": run.direction, "trigger": run.trigger}
    return {"pool_id": run.spec.pool_id, "tenant_id": run.tenant_id, **told}


_resent = Recently(30)


def resume() -> int:
    """Send lost messages again, and let tenants claim whose run has ended with its process."""
    busy = [pk for pk in Tenant.objects.values_list("backup_run", flat=True).exclude(backup_run=None) if pk]
    unfinished = {run.pk: run for run in SyncRun.objects.filter(pk__in=busy, state__in=UNFINISHED)}
    done = [pk for pk in busy if pk not in unfinished]
    Tenant.objects.filter(backup_run__in=done).update(backup_run=None)
    lost = timezone.now() - LOST_AFTER
    waiting = [r.pk for r in unfinished.values() if r.state == SyncRunState.QUEUED and r.created_at < lost]
    again = [pk for pk in waiting if _resent.is_new(pk)]
    with transaction.atomic():
        for pk in again:
            enqueue("sync", "tenants.tasks.put_back", pk)
    return len(done) + len(again)
