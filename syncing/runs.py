"""A sync run's row and events around its work, its progress, and the patience with sinks that fail for a moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import structlog
from django.db.models import F
from django.db.models.functions import Now

from boilerhouse.core import processes
from boilerhouse.core.errors import BoilerhouseError
from boilerhouse.core.events import emit, recording
from syncing import errors, rclone
from syncing.instruments import SYNC_BYTES, SYNC_RUNS, SYNC_SECONDS
from syncing.models import SyncMapping, SyncRun, SyncSpec
from syncing.sites import Site
from syncing.states import Direction, SyncRunState, Trigger

log = structlog.get_logger(__name__)


def queue_run(spec: SyncSpec, site_of: Site, direction: Direction, trigger: Trigger) -> SyncRun:
    return SyncRun.objects.create(
        spec=spec,
        tenant_id=site_of.tenant_id,
        container_id=site_of.container_id,
        generation=site_of.generation,
        direction=direction,
        trigger=trigger,
    )


@contextmanager
def running(
    spec: SyncSpec, site: Site, direction: Direction, trigger: Trigger, run: SyncRun | None
) -> Iterator[SyncRun]:
    """A run's row around its work: running, then succeeded or failed with the error's code and words."""
    _bury_interrupted(spec, site)
    with recording():
        run = run or queue_run(spec, site, direction, trigger)
        began = SyncRun.objects.filter(pk=run.pk, state=SyncRunState.QUEUED).update(
            state=SyncRunState.RUNNING, started_at=Now(), owner=processes.current()
        )
        if not began:
            raise errors.TransferCancelled("It was cancelled before it began.")
        told = {"runId": str(run.pk), "specId": spec.pk, "direction": direction, "trigger": trigger}
        about: dict[str, Any] = {
            "pool_id": site.pool_id,
            "tenant_id": site.tenant_id,
            "container_id": site.container_id,
        }
        emit("sync.started", **about, **told)
    began_at = time.monotonic()

    def count(result: str) -> None:
        SYNC_RUNS.labels(site.pool_id, direction, trigger, result).inc()
        SYNC_SECONDS.labels(direction, trigger).observe(time.monotonic() - began_at)

    try:
        yield run
    except Exception as error:  # whatever it was, the row must not say "running" for ever
        code, detail = getattr(error, "code", "failed"), getattr(error, "detail", str(error))
        cancelled = isinstance(error, errors.TransferCancelled)
        state = SyncRunState.CANCELLED if cancelled else SyncRunState.FAILED
        with recording():
            SyncRun.objects.filter(pk=run.pk).update(
                state=state,
                finished_at=Now(),
                error_code=code,
                error_detail=detail,
                steps=run.steps,
                skipped=run.skipped,
            )
            emit(f"sync.{state}", **about, **told, code=code, detail=detail)
        count("cancelled" if cancelled else code)
        if isinstance(error, BoilerhouseError):
            raise
        raise errors.SyncFailed(detail) from error
    with recording():
        SyncRun.objects.filter(pk=run.pk).update(
            state=SyncRunState.SUCCEEDED,
            finished_at=Now(),
            steps=run.steps,
            progress=run.progress,
            deleted=run.deleted,
            deletes=run.deletes,
            skipped=run.skipped,
        )
        done = {"files": run.progress.get("files", 0), "bytes": run.progress.get("bytes", 0), "deleted": run.deleted}
        emit("sync.completed", **about, **told, **done)
    count("succeeded")
    SYNC_BYTES.labels(direction).inc(sum(step.get("transferred", step["bytes"]) for step in run.steps))


def fail_queued(run: SyncRun, error: errors.SyncFailed) -> None:
    """End a run that cannot begin; nothing happens to one that is no longer queued."""
    with recording():
        failed = SyncRun.objects.filter(pk=run.pk, state=SyncRunState.QUEUED).update(
            state=SyncRunState.FAILED, finished_at=Now(), error_code=error.code, error_detail=error.detail
        )
        if not failed:
            return
        emit(
            "sync.failed", pool_id=run.spec.pool_id, tenant_id=run.tenant_id, container_id=run.container_id,
            runId=str(run.pk), specId=run.spec_id, direction=run.direction, trigger=run.trigger,
            code=error.code, detail=error.detail,
        )  # fmt: skip
    SYNC_RUNS.labels(run.spec.pool_id, run.direction, run.trigger, error.code).inc()


def _bury_interrupted(spec: SyncSpec, site: Site) -> None:
    """We hold the lock, so whatever still says it runs here is dead."""
    SyncRun.objects.filter(spec=spec, container_id=site.container_id, state=SyncRunState.RUNNING).update(
        state=SyncRunState.FAILED,
        finished_at=Now(),
        error_code="interrupted",
        error_detail="The process that ran it died.",
    )


def watch(run: SyncRun, site: Site, keep_going: Callable[[], bool]) -> Callable[[rclone.Progress], bool]:
    def on_progress(progress: rclone.Progress) -> bool:
        shown = _progress(progress)
        with recording():
            SyncRun.objects.filter(pk=run.pk).update(progress=shown)
            emit(
                "sync.progress", pool_id=site.pool_id, tenant_id=site.tenant_id, container_id=site.container_id,
                runId=str(run.pk), specId=run.spec_id, direction=run.direction, **shown,
            )  # fmt: skip
        return keep_going()

    return on_progress


def _progress(progress: rclone.Progress) -> dict[str, Any]:
    total = progress.total_bytes
    return {
        "bytes": progress.bytes,
        "totalBytes": total,
        "files": progress.files,
        "totalFiles": progress.total_files,
        "percent": round(100 * progress.bytes / total, 1) if total else None,
        "bytesPerSecond": round(progress.bytes_per_second),
        "etaMs": progress.eta_ms,
    }


def add_step(run: SyncRun, mapping: SyncMapping, location: str, files: int, size: int, **more: Any) -> None:
    step = {"mapping": mapping.position, "containerPath": mapping.container_path, "location": location}
    run.steps = [*run.steps, {**step, "files": files, "bytes": size, **more}]
    totals = {"files": sum(s["files"] for s in run.steps), "bytes": sum(s["bytes"] for s in run.steps)}
    run.progress = {**totals, "totalFiles": totals["files"], "totalBytes": totals["bytes"], "percent": 100.0}


RETRY_AFTER_S = (0.5, 2.0)
"""Pauses before a transfer is tried again; what then still fails is the run's error."""


RETRY_WITHIN_S = 30
"""A sink that took longer to fail is not waited for again: a tenant waits for the claim or the release."""


T = TypeVar("T")


def persist(attempt: Callable[[], T], run: SyncRun, keep_going: Callable[[], bool]) -> T:
    """The result of ``attempt``, tried again where that can help: a refusal or a full disk stays what it is."""
    began = time.monotonic()
    for pause in RETRY_AFTER_S:
        try:
            return attempt()
        except errors.SyncFailed as error:
            if not error.may_pass or time.monotonic() - began > RETRY_WITHIN_S or not keep_going():
                raise
            log.warning("transfer tried again", run=str(run.pk), code=error.code, detail=error.detail[:300])
            SyncRun.objects.filter(pk=run.pk).update(retries=F("retries") + 1)
        time.sleep(pause)
    return attempt()
