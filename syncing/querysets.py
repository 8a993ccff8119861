"""Querysets of sync runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from django.db import models
from django.db.models.functions import Now

from boilerhouse.core import clock, context, tenant_usage
from boilerhouse.core.events import emit, recording
from boilerhouse.core.tenant_usage import Amounts
from syncing.states import TRANSITIONS, UNFINISHED, Direction, SyncRunState, Trigger

if TYPE_CHECKING:
    from syncing.models import SyncRun

EVENTS = {
    SyncRunState.RUNNING: "sync.started",
    SyncRunState.SUCCEEDED: "sync.completed",
    SyncRunState.FAILED: "sync.failed",
    SyncRunState.CANCELLED: "sync.cancelled",
}


class SyncRunQuerySet(models.QuerySet["SyncRun"]):
    def queued(self) -> Self:
        return self.filter(state=SyncRunState.QUEUED)

    def running(self) -> Self:
        return self.filter(state=SyncRunState.RUNNING)

    def succeeded(self) -> Self:
        return self.filter(state=SyncRunState.SUCCEEDED)

    def failed(self) -> Self:
        return self.filter(state=SyncRunState.FAILED)

    def unfinished(self) -> Self:
        return self.filter(state__in=UNFINISHED)

    def transition(self, source: SyncRunState, target: SyncRunState, **changes: Any) -> int:
        """Move matching rows from ``source`` to ``target``, each with its event. Returns how many moved.

        The only writer of a run's state. A row that is no longer in ``source`` is left unchanged, without an event.
        """
        assert target in TRANSITIONS[source], f"{source} -> {target}"
        stamp = "started_at" if target == SyncRunState.RUNNING else "finished_at"
        changes = {"state": target, stamp: Now(), **changes}
        moved = 0
        with recording():
            for pk in self.filter(state=source).values_list("pk", flat=True):
                if self.filter(pk=pk, state=source).update(**changes):
                    run = self.model._default_manager.select_related("spec").get(pk=pk)
                    _tell(run)
                    if target not in UNFINISHED:
                        _count_traffic(run)
                    moved += 1
        return moved

    def bury(self) -> int:
        """Fail running ones because their process is dead; their claim or release decides what follows."""
        return self.transition(
            SyncRunState.RUNNING,
            SyncRunState.FAILED,
            error_code="interrupted",
            error_detail="The process that executed the run died.",
        )


def _count_traffic(run: SyncRun) -> None:
    """Add what the run transferred to its tenant's usage; runs at the sink alone transfer nothing of ours."""
    if run.container_id is None or not run.sent_bytes:
        return
    is_upload = run.direction == Direction.UPLOAD
    amounts = Amounts(**{"sent_bytes" if is_upload else "received_bytes": run.sent_bytes})
    tenant_usage.add({(run.tenant_id, tenant_usage.day_of(clock.now())): amounts})


def _tell(run: SyncRun) -> None:
    payload: dict[str, Any] = {"direction": run.direction, "trigger": run.trigger}
    match run.state:
        case SyncRunState.SUCCEEDED:
            payload |= {"files": run.progress.get("files", 0), "bytes": run.progress.get("bytes", 0)}
            payload["sentBytes"] = run.sent_bytes
            payload["deleted"] = run.deleted
        case SyncRunState.FAILED | SyncRunState.CANCELLED:
            payload |= {"code": run.error_code, "detail": run.error_detail}
    asked_by = run.cancelled_by if run.state == SyncRunState.CANCELLED and run.cancelled_by else run.asked_by
    emit(
        EVENTS[SyncRunState(run.state)], actor=context.for_whom(asked_by), pool_id=run.spec.pool_id,
        tenant_id=run.tenant_id, container_id=run.container_id, is_routine=is_unchanged(run) or None,
        runId=str(run.pk), specId=run.spec_id, **payload,
    )  # fmt: skip


def is_unchanged(run: SyncRun) -> bool:
    """Whether it is a save by the timer that found everything at the sink already."""
    is_periodic = run.trigger == Trigger.INTERVAL and run.direction == Direction.UPLOAD
    return is_periodic and run.state == SyncRunState.SUCCEEDED and not (run.sent_bytes or run.deleted)
