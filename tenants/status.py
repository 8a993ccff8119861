"""What is known of a tenant, whether it holds something or not."""

from __future__ import annotations

from typing import Any

from django.db.models import Max

from boilerhouse.core import clock
from syncing.models import SavedState, SyncRun
from syncing.states import Direction, SyncRunState
from tenants import idle
from tenants.models import Assignment, Tenant

MAX_ERRORS = 20


def tenant_status(tenant_id: str) -> dict[str, Any]:
    """The tenant's status in the API's shape; works for tenants never seen."""
    assignment = Assignment.objects.live().select_related("pool").filter(tenant_id=tenant_id).first()
    generation = Tenant.objects.filter(pk=tenant_id).values_list("generation", flat=True).first()
    due = idle.due_at(assignment) if assignment else None
    return {
        "assigned": assignment is not None,
        "state": assignment.state if assignment else None,
        "containerId": str(assignment.container_ref) if assignment and assignment.container_ref else None,
        "poolId": assignment.pool_id if assignment else None,
        "generation": generation,
        "assignedAt": assignment.assigned_at if assignment else None,
        "lastActivityAt": assignment.last_activity_at if assignment else None,
        "releaseDueAt": due,
        "syncStatus": _sync_status(tenant_id),
    }


def _sync_status(tenant_id: str) -> dict[str, Any]:
    last = SavedState.objects.current().filter(tenant_id=tenant_id).aggregate(last=Max("saved_at"))["last"]
    runs = SyncRun.objects.filter(tenant_id=tenant_id)
    pending = runs.filter(state__in=[SyncRunState.QUEUED, SyncRunState.RUNNING]).count()
    failed = runs.filter(state=SyncRunState.FAILED)
    success = runs.filter(state=SyncRunState.SUCCEEDED, direction=Direction.UPLOAD).order_by("-finished_at").first()
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
