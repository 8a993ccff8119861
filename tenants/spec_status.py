"""The status of a sync spec: its sink, its runs of the last day, and the age of its tenants' saves."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from boilerhouse.core import clock
from syncing.models import SyncRun, SyncSpec, bytes_moved
from tenants import syncs

DAY = timedelta(hours=24)
MAX_ERRORS = 20


def spec_status(spec: SyncSpec) -> dict[str, Any]:
    """The status in the API's format. A tenant is stale if its last complete save is older than twice the interval;
    without an interval, none is."""
    now = clock.now()
    runs = SyncRun.objects.filter(spec=spec)
    recent = runs.filter(finished_at__gt=now - DAY)
    last = runs.order_by("-created_at", "-pk").first()
    success = runs.succeeded().order_by("-finished_at").first()
    failed = recent.failed()
    saves = syncs.oldest_saves(spec)
    overdue = [beat for beat in syncs.periodic_saves() if beat.spec.pk == spec.pk and beat.is_overdue(now)]
    return {
        "specId": spec.pk,
        "sinkHealth": spec.sink_health,
        "lastRun": _brief(last) if last else None,
        "lastSuccessAt": success.finished_at if success else None,
        "running": runs.running().count(),
        "pending": runs.queued().count(),
        "failed24h": failed.count(),
        "bytes24h": bytes_moved(recent.succeeded()),
        "tenants": {"covered": len(saves) if _saves(spec) else 0, "stale": len(overdue)},
        "errors": [
            {"at": run.finished_at, "runId": str(run.pk), "tenantId": run.tenant_id}
            | {"code": run.error_code, "detail": run.error_detail}
            for run in failed.order_by("-finished_at")[:MAX_ERRORS]
        ],
    }


def _saves(spec: SyncSpec) -> bool:
    return any(mapping.uploads for mapping in spec.mappings.all())


def _brief(run: SyncRun) -> dict[str, Any]:
    return {
        "id": str(run.pk),
        "tenantId": run.tenant_id,
        "direction": run.direction,
        "trigger": run.trigger,
        "state": run.state,
        "startedAt": run.started_at,
        "finishedAt": run.finished_at,
    }
