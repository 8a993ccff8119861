"""The status of a tenant, with or without a container."""

from __future__ import annotations

from typing import Any

from django.db.models import Max

from boilerhouse.core import clock
from syncing.models import SavedState, SyncRun
from syncing.states import Direction, SyncRunState, Trigger
from tenants import deaths, errors, idle
from tenants.gateway import public_urls
from tenants.models import Assignment, Tenant
from tenants.states import AssignmentState

MAX_ERRORS = 20
NOTHING_YET = {
    "bytes": 0, "totalBytes": 0, "files": 0, "totalFiles": 0, "percent": None, "bytesPerSecond": 0, "etaMs": None,
}  # fmt: skip


def tenant_status(tenant_id: str, *, reads_logs: bool = False) -> dict[str, Any]:
    """The tenant's status in the API's format; also for unknown tenants."""
    death = deaths.last_of(tenant_id)
    rows = Assignment.objects.select_related("pool", "tenant").filter(tenant_id=tenant_id)
    newest = rows.order_by("-created_at").first()
    assignment = newest if newest and newest.state != AssignmentState.ENDED else None
    tenant = newest.tenant if newest else Tenant.objects.filter(pk=tenant_id).first()
    due = idle.due_at(assignment) if assignment else None
    return {
        "assigned": assignment is not None,
        "state": assignment.state if assignment else None,
        "containerId": str(assignment.container_ref) if assignment and assignment.container_ref else None,
        "poolId": assignment.pool_id if assignment else None,
        "generation": tenant.generation if tenant else None,
        "assignedAt": assignment.assigned_at if assignment else None,
        "endpoints": endpoints(assignment),
        "lastActivityAt": assignment.last_activity_at if assignment else None,
        "releaseDueAt": due,
        "endsAt": assignment.ends_at if assignment else None,
        "deadline": assignment.deadline if assignment and assignment.state == AssignmentState.PENDING else None,
        "restore": restore_progress(assignment),
        "claimError": claim_error(newest),
        "lastDeath": deaths.render(death, reads_logs=reads_logs) if death else None,
        "syncStatus": _sync_status(tenant_id),
    }


def endpoints(assignment: Assignment | None) -> list[dict[str, Any]]:
    """The ports of the tenant's container, as the claim's answer has them; none while it is not assigned."""
    if assignment is None or assignment.state != AssignmentState.ASSIGNED:
        return []
    return public_urls.added(assignment.endpoints, assignment.tenant.host_label)


def restore_progress(assignment: Assignment | None) -> dict[str, Any] | None:
    """The progress of a pending claim's restore; None if nothing is being restored."""
    if assignment is None or assignment.state != AssignmentState.PENDING:
        return None
    runs = SyncRun.objects.filter(
        tenant_id=assignment.tenant_id, container_id=assignment.container_ref, trigger=Trigger.CLAIM,
        state=SyncRunState.RUNNING,
    )  # fmt: skip
    run = runs.order_by("-created_at").first()
    if run is None:
        return None
    return {"runId": str(run.pk), **{name: run.progress.get(name, value) for name, value in NOTHING_YET.items()}}


def claim_error(newest: Assignment | None) -> dict[str, Any] | None:
    """Why the tenant's newest claim failed; None if it did not."""
    if newest is None or newest.was_assigned or not newest.outcome:
        return None
    return {
        "at": newest.ended_at or newest.state_changed_at,
        "generation": newest.generation,
        "code": newest.outcome,
        "detail": newest.outcome_detail or str(getattr(errors.OUTCOMES.get(newest.outcome), "__doc__", "") or ""),
    }


def _sync_status(tenant_id: str) -> dict[str, Any]:
    last = SavedState.objects.current().filter(tenant_id=tenant_id).aggregate(last=Max("saved_at"))["last"]
    runs = SyncRun.objects.filter(tenant_id=tenant_id)
    pending = runs.unfinished().count()
    failed = runs.failed()
    success = runs.succeeded().filter(direction=Direction.UPLOAD).order_by("-finished_at").first()
    if success and success.finished_at:
        failed = failed.filter(finished_at__gt=success.finished_at)
    return {
        "lastSync": last,
        "ageMs": round((clock.now() - last).total_seconds() * 1000) if last else None,
        "pending": pending,
        "errors": [
            {"at": run.finished_at, "runId": str(run.pk), "code": run.error_code, "detail": run.error_detail}
            for run in failed.order_by("-finished_at")[:MAX_ERRORS]
        ],
    }
