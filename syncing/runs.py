"""A sync run's row and events around its work, its progress, and retries for sinks that fail temporarily."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import structlog
from django.conf import settings
from django.db.models import F

from boilerhouse.core import clock, context, unexpected_errors
from boilerhouse.core.errors import BoilerhouseError
from boilerhouse.core.events import emit, recording
from boilerhouse.process import ownership, processes
from syncing import errors, rclone
from syncing.instruments import SYNC_BYTES, SYNC_RUNS, SYNC_SECONDS
from syncing.models import SyncMapping, SyncRun, SyncSpec
from syncing.states import Direction, SyncRunState, Trigger
from syncing.targets import TransferTarget

log = structlog.get_logger(__name__)


def queue_run(spec: SyncSpec, target: TransferTarget, direction: Direction, trigger: Trigger) -> SyncRun:
    return SyncRun.objects.create(
        spec=spec,
        tenant_id=target.tenant_id,
        container_id=target.container_id,
        generation=target.generation,
        direction=direction,
        trigger=trigger,
        asked_by=context.actor(),
        created_at=clock.now(),
    )


@contextmanager
def running(
    spec: SyncSpec, target: TransferTarget, direction: Direction, trigger: Trigger, run: SyncRun | None
) -> Iterator[SyncRun]:
    """Sets a run's row around its work: running, then succeeded, or failed with the error's code and message."""
    # We hold the lock, so any other run marked as running here is dead.
    SyncRun.objects.filter(spec=spec, container_id=target.container_id).bury()
    with recording():
        run = run or queue_run(spec, target, direction, trigger)
        mine = SyncRun.objects.filter(pk=run.pk)
        if not mine.transition(SyncRunState.QUEUED, SyncRunState.RUNNING, owner=ownership.take(SyncRun, run.pk)):
            raise errors.TransferCancelled("The run was cancelled before it began.")
    mine = mine.filter(owner=processes.current())
    began_at = time.monotonic()

    def end(state: SyncRunState, result: str, **changes: Any) -> None:
        if not mine.transition(SyncRunState.RUNNING, state, steps=run.steps, skipped=run.skipped, **changes):
            log.warning("run already ended by another process", run=str(run.pk), result=result)
            return
        SYNC_RUNS.labels(target.pool_id, direction, trigger, result).inc()
        SYNC_SECONDS.labels(direction, trigger).observe(time.monotonic() - began_at)

    try:
        yield run
    except Exception as error:  # whatever failed, the run must not stay "running"
        public = unexpected_errors.as_public_error(error)
        error_fields = {"error_code": public.code, "error_detail": public.detail}
        if isinstance(error, errors.TransferCancelled):
            end(SyncRunState.CANCELLED, "cancelled", **error_fields)
        else:
            end(SyncRunState.FAILED, public.code, **error_fields)
        if isinstance(error, BoilerhouseError):
            raise
        raise errors.SyncFailed(public.detail) from error
    end(SyncRunState.SUCCEEDED, "succeeded", progress=run.progress, deleted=run.deleted, deletes=run.deletes)
    SYNC_BYTES.labels(direction).inc(run.sent_bytes)


def fail_queued(run: SyncRun, error: errors.SyncFailed) -> None:
    """End a run that cannot start; does nothing if it is no longer queued."""
    queued = SyncRun.objects.filter(pk=run.pk)
    changes = {"error_code": error.code, "error_detail": error.detail}
    if queued.transition(SyncRunState.QUEUED, SyncRunState.FAILED, **changes):
        SYNC_RUNS.labels(run.spec.pool_id, run.direction, run.trigger, error.code).inc()


class ProgressReporter:
    """Records a run's progress, and emits it in events, across the retries of its transfers.

    Frequently at first, then every five seconds: a transfer of hours must not fill the event log.
    """

    def __init__(self, run: SyncRun, target: TransferTarget, total_files: int = 0, total_bytes: int = 0) -> None:
        """The totals are those of the run's task if known; 0: those of rclone."""
        self.run, self._target = run, target
        self._totals = total_files, total_bytes
        self._before = rclone.Progress()
        self._began = self._moved_at = time.monotonic()
        self._said_at = -TELL_AT_MOST_S
        self.progress = rclone.Progress()

    def begin_attempt(self) -> None:
        """The starting attempt has no progress yet, and its transfer may never have any."""
        files, size = self.sent
        self._before, self.progress = rclone.Progress(bytes=size, files=files), rclone.Progress()

    def begin_try(self, files: int, size: int) -> None:
        """Start a retry, with this part of the totals already done."""
        self._before, self.progress = rclone.Progress(bytes=size, files=files), rclone.Progress()
        if self._totals[1] >= settings.BOILERHOUSE_LARGE_BYTES:
            self._tell(force=True)  # it may wait for a slot before it starts

    @property
    def sent(self) -> tuple[int, int]:
        """Files and bytes of all attempts so far."""
        return self._before.files + self.progress.files, self._before.bytes + self.progress.bytes

    @property
    def arrived(self) -> int:
        """Complete files that this attempt has transferred or deleted, which the next one need not repeat."""
        return self.progress.files + self.progress.deletes

    @property
    def idle_s(self) -> float:
        """How long there has been no progress."""
        return time.monotonic() - self._moved_at

    def __call__(self, progress: rclone.Progress) -> None:
        if _counts(progress) != _counts(self.progress):
            self._moved_at = time.monotonic()
        self.progress = progress
        self._tell()

    def _tell(self, *, force: bool = False) -> None:
        now = time.monotonic()
        if not force and now - self._said_at < min(TELL_AT_MOST_S, (now - self._began) / 60):
            return
        self._said_at = now
        progress = self.rendered_progress()
        with recording():
            if not SyncRun.objects.running().filter(pk=self.run.pk).update(progress=progress):
                return  # another process has ended it, and reported that
            emit(
                "sync.progress", pool_id=self._target.pool_id, tenant_id=self._target.tenant_id,
                container_id=self._target.container_id, runId=str(self.run.pk), specId=self.run.spec_id,
                direction=self.run.direction, actor=context.for_whom(self.run.asked_by), **progress,
            )  # fmt: skip

    def rendered_progress(self) -> dict[str, Any]:
        """The run's ``progress`` in the API's format."""
        now, (total_files, total) = self.progress, self._totals
        files, size = self._before.files + now.files, self._before.bytes + now.bytes
        total_files = total_files or self._before.files + now.total_files
        total = total or self._before.bytes + now.total_bytes
        files, size = min(files, total_files), min(size, total)
        eta = now.eta_ms
        if self._totals[1]:
            eta = round((total - size) / now.bytes_per_second * 1000) if now.bytes_per_second >= 1 else None
        return {
            "bytes": size,
            "sentBytes": self._before.bytes + now.bytes,
            "totalBytes": total,
            "files": files,
            "totalFiles": total_files,
            "percent": round(100 * size / total, 1) if total else None,
            "bytesPerSecond": round(now.bytes_per_second),
            "etaMs": eta,
        }


def _counts(progress: rclone.Progress) -> tuple[int, ...]:
    return progress.bytes, progress.files, progress.checks, progress.deletes


def add_step(run: SyncRun, mapping: SyncMapping, location: str, files: int, size: int, **more: Any) -> None:
    step = {"mapping": mapping.position, "containerPath": mapping.container_path, "location": location}
    run.steps = [*run.steps, {**step, "files": files, "bytes": size, **more}]
    totals = {"files": sum(s["files"] for s in run.steps), "bytes": sum(s["bytes"] for s in run.steps)}
    sent = {"sentBytes": sum(s.get("transferred", s["bytes"]) for s in run.steps)}
    run.progress = {**totals, **sent, "totalFiles": totals["files"], "totalBytes": totals["bytes"], "percent": 100.0}


TELL_AT_MOST_S = 5.0

RETRY_AFTER_S = (0.5, 2.0)
"""Pauses after attempts without progress; the next such failure is the run's error."""
PATIENT_PAUSE_S = 5.0
RETRY_WITHIN_S = 30
"""After a longer time without progress there is no retry: a tenant waits for the claim or the release."""

T = TypeVar("T")


def persist(
    attempt: Callable[[], T],
    reporter: ProgressReporter,
    keep_going: Callable[[], bool],
    *,
    resumes: bool,
    is_patient: bool = False,
) -> T:
    """The result of ``attempt``, retried if that can help: not after a refusal or on a full disk.

    With ``resumes``, where a retry continues, there is no limit while each one completes a file, unless the sink is too
    slow. With ``is_patient``, if no client waits, it retries until the stall limit.
    """
    within_s = settings.BOILERHOUSE_TRANSFER_STALL_S if is_patient else RETRY_WITHIN_S
    fruitless = 0
    while True:
        reporter.begin_attempt()
        try:
            return attempt()
        except errors.SyncFailed as error:
            has_moved = resumes and reporter.arrived > 0
            if has_moved:
                fruitless = 0
            elif (fruitless >= len(RETRY_AFTER_S) and not is_patient) or reporter.idle_s > within_s:
                raise
            is_over = isinstance(error, errors.TransferStalled) and not has_moved
            if not error.may_pass or is_over or isinstance(error, errors.TooSlow) or not keep_going():
                raise
            log.warning("transfer retried", run=str(reporter.run.pk), code=error.code, detail=error.detail[:300])
            SyncRun.objects.filter(pk=reporter.run.pk).update(retries=F("retries") + 1)
        time.sleep(RETRY_AFTER_S[fruitless] if fruitless < len(RETRY_AFTER_S) else PATIENT_PAUSE_S)
        fruitless += 1
