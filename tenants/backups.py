"""A tenant's backups: what its saves replaced, and restoring one while the tenant holds no container."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.db.models import QuerySet

from boilerhouse.core import audit
from boilerhouse.core.events import recording
from syncing import backup_restores
from syncing import errors as sync_errors
from syncing.models import Backup, SyncRun
from syncing.states import Trigger
from tenants import errors, sink_runs, validation


def of_tenant(tenant_id: str) -> QuerySet[Backup]:
    """The backups of the tenant's earlier saves. Raises Invalid."""
    return Backup.objects.filter(tenant_id=validation.check_tenant_id(tenant_id))


def restore(tenant_id: str, backup_id: UUID) -> SyncRun:
    """Queue a run that restores the backup's files at the sink; no claim starts until it has ended.

    Raises BackupNotFound, Held while the tenant holds a container, RestoringBackup or Erasing while another run is in
    progress.
    """
    backup = of_tenant(tenant_id).select_related("spec").filter(pk=backup_id).first()
    if backup is None:
        raise errors.BackupNotFound(f"This tenant has no backup {backup_id}.")
    step = {"backup": str(backup.pk), "containerPath": backup.container_path, "location": backup.location}
    with recording():
        run = sink_runs.begin(tenant_id, Trigger.BACKUP, [(backup.spec, step)])[0]
        audit.record("tenant.restore_backup", tenant_id, after={"backupId": str(backup_id), "runId": str(run.pk)})
    return run


def put_back(run_id: UUID) -> None:
    """Execute the run, on a worker."""
    sink_runs.work(run_id, _put_back)


def _put_back(run: SyncRun, keep_going: Callable[[], bool]) -> dict[str, Any]:
    backup = Backup.objects.select_related("spec__credential").filter(pk=run.steps[0]["backup"]).first()
    if backup is None:
        raise sync_errors.StateMissing("The backup has expired.")
    files, size = backup_restores.restore(run, backup, keep_going)
    totals = {"files": files, "bytes": size, "totalFiles": files, "totalBytes": size, "percent": 100.0}
    return {"progress": totals}
