"""Release: fence the tenant, save its state, destroy the container, wipe the disk.

Each step is committed before it is executed and can be repeated; from ``destroying`` on, nothing is saved any more
(hazards.md#b2). Everything runs under the container's file lock, and the row is read again after the lock was acquired.
"""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import structlog
from django.db import transaction
from django.db.models import F, QuerySet
from django.db.models.functions import Now

from boilerhouse.core import audit, clock, context, failpoints
from boilerhouse.core.errors import BoilerhouseError
from boilerhouse.core.events import emit, recording, wake
from boilerhouse.process import ownership, processes
from boilerhouse.process.outage import DATABASE_LOST
from boilerhouse.queues import in_progress, slow_work
from pools import errors as pool_errors
from pools import freezer, lifecycle, sizing
from pools.models import Container, Pool
from pools.nodes import node_of
from syncing import errors as sync_errors
from syncing import places, saves
from syncing import services as syncing
from syncing.states import Trigger
from tenants import aborts, deaths, errors, hooks, validation
from tenants.instruments import RELEASE_SECONDS, RELEASES
from tenants.models import Assignment
from tenants.states import AssignmentState, ReleaseReason, ReleaseStep
from tenants.transfer_target import target_of

log = structlog.get_logger(__name__)

RETRY_S = (5, 10, 30, 60, 120, 300, 600)
ENGINE_RETRY_S = 2
LINE_S = 5
LOCK_TAKEN_S = 0.3
"""How long to wait for other work on the container, such as a save, which is told that the tenant is being released."""
SAVES = (ReleaseStep.STOPPING, ReleaseStep.SAVING)
DESTROYED_IN = (ReleaseStep.SAVED, ReleaseStep.DESTROYING)
"""The steps in which the container is destroyed: what is saved needs no further step."""
RELEASING, FAILED = AssignmentState.RELEASING, AssignmentState.RELEASE_FAILED


class Interrupted(BoilerhouseError):
    """Another process has taken over this release."""

    code = "interrupted"


@dataclass(frozen=True, slots=True)
class Release:
    """An accepted release."""

    assignment_id: UUID
    pool_id: str
    attempt: int


def begin(tenant_id: str, *, sync: bool | None = None, discard: bool = False) -> Release:
    """Fence the tenant and start its release, or join, retry or discard one that is in progress.

    Raises NothingHeld. ``settle`` reports the outcome.
    """
    validation.check_tenant_id(tenant_id)
    return _begin(Assignment.objects.live().filter(tenant_id=tenant_id), sync, discard)


def begin_in(container_id: UUID, *, discard: bool = False) -> Release:
    """The same for the container's tenant. Raises NothingHeld."""
    return _begin(Assignment.objects.live().filter(container_ref=container_id), None, discard)


def _begin(rows: QuerySet[Assignment], sync: bool | None, discard: bool) -> Release:
    for assignment in iter(rows.first, None):  # again if another process was first
        with recording():
            before = {"state": assignment.state, "poolId": assignment.pool_id, "generation": assignment.generation}
            release = _try(assignment, sync, discard)
            if release is not None:
                after = {"sync": sync, "discard": discard}
                audit.record("tenant.release", assignment.tenant_id, before=before, after=after)
                return release
    raise errors.NothingHeld


def _try(assignment: Assignment, sync: bool | None, discard: bool) -> Release | None:
    """None if another process has changed the row meanwhile."""
    release = Release(assignment.pk, assignment.pool_id, assignment.attempt)
    row = Assignment.objects.filter(pk=assignment.pk)
    match assignment.state:
        case AssignmentState.PENDING:
            return release if aborts.give_up(assignment.pk, errors.ClaimAborted.code) else None
        case AssignmentState.ASSIGNED:
            return release if fence(row, save_all=sync, discard=discard) else None
        case AssignmentState.RELEASING:
            if discard:
                row.filter(state=RELEASING).update(discard=True, released_by=context.actor())
            return release
        case AssignmentState.RELEASE_FAILED:
            moved = retry(assignment, discard=discard)
            return Release(assignment.pk, assignment.pool_id, assignment.attempt + 1) if moved else None
    return None


def fence(
    rows: Any,
    *,
    save_all: bool | None = None,
    discard: bool = False,
    reason: ReleaseReason = ReleaseReason.REQUESTED,
) -> bool:
    """Move one assigned row to ``releasing`` and enqueue the work; False if another process was first."""
    pk = rows.values_list("pk", flat=True).first()
    if pk is None:
        return False
    with recording():
        moved = rows.transition(
            AssignmentState.ASSIGNED,
            RELEASING,
            step=ReleaseStep.STOPPING,
            save_all=save_all,
            discard=discard,
            reason=reason,
            released_by=context.actor(),
            attempt=0,
            owner=None,
        )
        if moved:
            assignment = Assignment.objects.select_related("container").get(pk=pk)
            lifecycle.retire(assignment.held_container)
            node_of(assignment).queue.put("save", "tenants.tasks.finish_release", assignment.pk)
        transaction.on_commit(partial(failpoints.reach, "release.fenced"))
    return bool(moved)


def retry(assignment: Assignment, *, discard: bool = False) -> bool:
    """Retry a failed save immediately, or discard its state; False if another process was first."""
    with recording():
        rows = Assignment.objects.filter(pk=assignment.pk, attempt=assignment.attempt)
        moved = rows.transition(
            FAILED,
            RELEASING,
            step=ReleaseStep.DESTROYING if discard else ReleaseStep.STOPPING,
            discard=discard,
            attempt=F("attempt") + 1,
            owner=None,
            released_by=context.for_whom(assignment.released_by),
        )
        if moved:
            recount(assignment.pool_id)
            node_of(assignment).queue.put("save", "tenants.tasks.finish_release", assignment.pk)
    return bool(moved)


def are_to_save(pool_id: str) -> bool:
    """Whether tenants of the pool are being released whose state is not saved yet."""
    rows = Assignment.objects.filter(pool_id=pool_id, state=RELEASING, step__in=SAVES)
    return rows.filter(was_assigned=True, discard=False).exists()


def settled(keys: set[Hashable]) -> set[Hashable]:
    """Which of these assignments are no longer being released."""
    busy = Assignment.objects.filter(pk__in=list(map(str, keys)), state=RELEASING).values_list("pk", flat=True)
    return keys - set(busy)


def settle(release: Release) -> bool:
    """True when the state is saved and the container gone, False while it is not. Raises SaveFailed."""
    assignment = Assignment.objects.filter(pk=release.assignment_id).first()
    if assignment is None or assignment.state == AssignmentState.ENDED:
        return True
    if assignment.state == FAILED:
        raise errors.SaveFailed(
            f"The state could not be saved ({assignment.outcome}: {assignment.outcome_detail})."
            f" {assignment.whereabouts} The save is retried."
        )
    return False


@in_progress.alone
def finish(assignment_id: UUID) -> None:
    """Continue a release from the step in its row, to its end or to ``release_failed``. Can be repeated."""
    assignment = _adopt(assignment_id)
    if assignment is None:
        return
    structlog.contextvars.bind_contextvars(
        tenant=assignment.tenant_id, container=str(assignment.container_ref), generation=assignment.generation
    )
    if not node_of(assignment).is_here:
        _put_off(assignment, 0)
        node_of(assignment).queue.hand_on("save", "tenants.tasks.finish_release", assignment.pk)
        return
    with context.acting_for(assignment.released_by):
        _finish(assignment)


def _finish(assignment: Assignment) -> None:
    try:
        with slow_work.entered_for(_far_ends_of(assignment)) as may_save:
            if not may_save:
                stood_s = (clock.now() - assignment.state_changed_at).total_seconds()
                _back_to_the_queue(assignment, slow_work.pause_s(stood_s))
                return
            with slow_work.entered(_size_of(assignment)) as may_begin:
                if not may_begin:
                    _put_off(assignment, LINE_S)
                    return
                _carry_on(assignment)
    except Interrupted:
        return
    except sync_errors.SyncFailed as error:
        _save_failed(assignment, error)
    except DATABASE_LOST:
        raise  # undecided: the next owner continues with the recorded step
    except Exception as error:  # whatever failed, the row must not stay under a living owner that has stopped
        log.warning(
            "release interrupted", error=type(error).__name__, detail=str(error)[:300],
            exc_info=not isinstance(error, BoilerhouseError),
        )  # fmt: skip
        _put_off(assignment, ENGINE_RETRY_S)


def _carry_on(assignment: Assignment) -> None:
    try:
        with ExitStack() as stack:
            try:
                lock = stack.enter_context(node_of(assignment).volumes.locked(assignment.held_container))
            except pool_errors.Locked:
                _back_to_the_queue(assignment, LOCK_TAKEN_S)
                return
            _run_steps(assignment, lock)
    except pool_errors.DirectoryGone as error:
        _without_directory(assignment, error)
    _end(assignment)


def _back_to_the_queue(assignment: Assignment, after_s: float) -> None:
    """Free the worker while other work uses the container, or the maximum number of workers waits for its sink."""
    with transaction.atomic():
        _put_off(assignment, after_s)
        node_of(assignment).queue.put("save", "tenants.tasks.finish_release", assignment.pk, after_s=after_s)


def _put_off(assignment: Assignment, delay_s: float) -> None:
    """Free the row, and requeue it after a while."""
    later = clock.now() + timedelta(seconds=delay_s)
    Assignment.objects.filter(pk=assignment.pk, owner=processes.current()).update(owner=None, next_attempt_at=later)


def _size_of(assignment: Assignment) -> int:
    """Approximate size of its save in bytes, as far as known."""
    return syncing.known_bytes(assignment.tenant_id) if _has_to_save(assignment) else 0


def _far_ends_of(assignment: Assignment) -> set[str]:
    """The sinks that its state is saved to."""
    if not _has_to_save(assignment):
        return set()
    return {places.far_end(spec) for spec in syncing.specs_to_save(assignment.pool_id, assignment.save_all)}


def _has_to_save(assignment: Assignment) -> bool:
    return assignment.was_assigned and not assignment.discard and assignment.step in SAVES


def _adopt(assignment_id: UUID) -> Assignment | None:
    if not ownership.adopt(Assignment.objects.filter(state=RELEASING), assignment_id):
        return None
    return Assignment.objects.select_related("version", "container").get(pk=assignment_id)


def _advance(assignment: Assignment, step: ReleaseStep) -> None:
    """Record the next step before it is executed. Raises Interrupted if another process owns the row."""
    rows = Assignment.objects.filter(
        pk=assignment.pk, state=RELEASING, step=assignment.step, attempt=assignment.attempt, owner=processes.current()
    )
    if not rows.update(step=step):
        raise Interrupted
    assignment.step = step


def _without_directory(assignment: Assignment, error: pool_errors.DirectoryGone) -> None:
    """Finish a release that needs no directory. Raises DirectoryMissing while its state is neither saved nor discarded.

    The directory may be on another machine or on a mount that returns, so its absence is not a success (P4).
    """
    _confirm(assignment)
    node = node_of(assignment)
    if not _may_destroy(assignment):
        name = lifecycle.runtime_name(assignment.held_container)
        if assignment.step == ReleaseStep.STOPPING:
            _run_pre_release(assignment)
        _stop(assignment, name)
        lifecycle.destroy_at_engine(node, assignment.held_container)
        raise sync_errors.DirectoryMissing(error.detail) from error
    lifecycle.destroy_at_engine(node, assignment.held_container)
    node.volumes.wipe(assignment.held_container)


def _may_destroy(assignment: Assignment) -> bool:
    """Whether the directory contains nothing that still has to be saved."""
    if assignment.discard or not assignment.was_assigned:
        return True
    return assignment.step in (ReleaseStep.SAVED, ReleaseStep.DESTROYING, ReleaseStep.WIPING)


def _confirm(assignment: Assignment) -> None:
    """Read the row again, but not the rows that it refers to. Raises Interrupted if another process owns it."""
    assignment.refresh_from_db(
        fields=[field.attname for field in Assignment._meta.concrete_fields if not field.is_relation]
    )
    if assignment.state != RELEASING or assignment.owner != processes.current():
        raise Interrupted


def _run_steps(assignment: Assignment, lock: int) -> None:
    _confirm(assignment)
    container_id, name = assignment.held_container, lifecycle.runtime_name(assignment.held_container)
    node = node_of(assignment)
    if assignment.container and freezer.is_frozen(assignment.container.runtime_id):
        freezer.thaw(node.runtime, assignment.container.runtime_id, name)  # none of its runs could end
    if assignment.step in (ReleaseStep.STOPPING, ReleaseStep.SAVING):
        if assignment.step == ReleaseStep.STOPPING and not assignment.discard:
            _run_pre_release(assignment)
        _stop(assignment, name)
        failpoints.reach("release.stopped")
        if assignment.was_assigned and not assignment.discard:
            _advance(assignment, ReleaseStep.SAVING)
            try:
                _save(assignment, lock)
                failpoints.reach("release.saved")
                _advance(assignment, ReleaseStep.SAVED)
            except sync_errors.SyncFailed:
                assignment.refresh_from_db(fields=["discard"])
                if not assignment.discard:
                    lifecycle.destroy_at_engine(node, container_id)
                    raise
    if assignment.step not in DESTROYED_IN and assignment.step != ReleaseStep.WIPING:
        _advance(assignment, ReleaseStep.DESTROYING)
    if assignment.step in DESTROYED_IN:
        lifecycle.destroy_at_engine(node, container_id)
        failpoints.reach("release.destroyed")
        _advance(assignment, ReleaseStep.WIPING)
    assignment.refresh_from_db(fields=["discard"])
    if assignment.discard and assignment.was_assigned:
        node.volumes.discard(container_id)
        return
    if not assignment.was_assigned:
        if node.volumes.is_anothers(container_id, assignment.tenant_id, assignment.generation):
            _keep_anothers(assignment)
            return
        node.volumes.put_aside(container_id, assignment.tenant_id)
    node.volumes.wipe(container_id)


def _keep_anothers(assignment: Assignment) -> None:
    """The claim was aborted before it found out; the directory is kept for a person to inspect (hazards.md#a1)."""
    detail = "A container that has held another tenant's data had been claimed; its directory is quarantined."
    log.error("directory quarantined", latch=node_of(assignment).volumes.read_latch(assignment.held_container))
    emit("pool.warning", pool_id=assignment.pool_id, container_id=assignment.container_ref, detail=detail)


def _run_pre_release(assignment: Assignment) -> None:
    spec = assignment.version.spec if assignment.version else None
    if spec is not None and assignment.was_assigned:
        hooks.run_before_save(assignment, "preRelease", spec.pre_release)


def _stop(assignment: Assignment, name: str) -> None:
    """Stop the container and verify that it has stopped: nothing is saved while a process writes (hazards.md#b3)."""
    runtime = node_of(assignment).runtime
    grace = assignment.version.spec.stop_timeout_ms if assignment.version and assignment.was_assigned else 0
    observed = runtime.stop(name, grace)
    if observed is not None and observed.is_running:
        raise pool_errors.EngineFailure("The container is still running after it was stopped.")
    deaths.keep(assignment, observed)


def _save(assignment: Assignment, lock: int) -> None:
    specs = syncing.specs_to_save(assignment.pool_id, assignment.save_all)
    if not specs or assignment.version is None or assignment.uid is None:
        return

    def keep_going() -> bool:
        rows = Assignment.objects.filter(pk=assignment.pk, state=RELEASING, owner=processes.current(), discard=False)
        return rows.exists()

    saves.save(target_of(assignment, lock, is_stopped=True), specs, Trigger.RELEASE, keep_going)


def _end(assignment: Assignment) -> None:
    failpoints.reach("release.wiped")
    node_of(assignment).host.release_uid(assignment.held_container)
    outcome = assignment.outcome if not assignment.was_assigned else ("discarded" if assignment.discard else "released")
    with recording():
        ended = Assignment.objects.filter(pk=assignment.pk, owner=processes.current()).transition(
            RELEASING, AssignmentState.ENDED, step="", outcome=outcome, ended_at=Now(), owner=None, next_attempt_at=None
        )
        if not ended:
            return
        lifecycle.forget(assignment.held_container)
        emit(
            "container.released",
            pool_id=assignment.pool_id,
            container_id=assignment.container_ref,
            tenant_id=assignment.tenant_id,
            outcome=outcome,
            reason=assignment.reason,
        )
    if assignment.was_assigned:
        RELEASES.labels(assignment.pool_id, outcome).inc()
        took = clock.now() - assignment.state_changed_at
        RELEASE_SECONDS.labels(assignment.pool_id).observe(max(0.0, took.total_seconds()))
    sizing.refill(assignment.pool_id)


def _save_failed(assignment: Assignment, error: sync_errors.SyncFailed) -> None:
    """The container is removed and its slot free; the directory stays and the save is retried (hazards.md#b4)."""
    delay = RETRY_S[min(assignment.attempt, len(RETRY_S) - 1)]
    with recording():
        moved = Assignment.objects.filter(pk=assignment.pk, owner=processes.current()).transition(
            RELEASING,
            FAILED,
            step=ReleaseStep.SAVING,
            directory_node=assignment.node_id,
            outcome=error.code,
            outcome_detail=error.detail,
            owner=None,
            next_attempt_at=clock.now() + timedelta(seconds=delay),
        )
        if not moved:
            return
        recount(assignment.pool_id)
        emit(
            "container.release_failed",
            pool_id=assignment.pool_id,
            container_id=assignment.container_ref,
            tenant_id=assignment.tenant_id,
            code=error.code,
            detail=error.detail,
            nextAttemptInMs=delay * 1000,
        )
        if Container.objects.filter(pk=assignment.held_container).exists():
            lifecycle.forget(assignment.held_container, keepsDirectory=True)
        wake()
    RELEASES.labels(assignment.pool_id, error.code).inc()
    sizing.refill(assignment.pool_id)


def recount(pool_id: str) -> None:
    """Record on the pool how many of its saves have failed."""
    Pool.objects.select_for_update(no_key=True).filter(pk=pool_id).first()  # before counting, as for waiting claims
    count = Assignment.objects.filter(pool_id=pool_id, state=FAILED).count()
    Pool.objects.filter(pk=pool_id).update(release_failed=count)
