"""Aborts claims that cannot succeed: one conditional UPDATE fences them, and the release task cleans up (P7)."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import structlog
from django.db.models.functions import Now

from boilerhouse.core import context, unexpected_errors
from boilerhouse.core.errors import BoilerhouseError, Internal
from boilerhouse.core.events import emit, recording, wake
from pools import errors as pool_errors
from pools import lifecycle
from pools.models import Pool
from pools.nodes import node_of
from pools.states import Trouble
from syncing import errors as sync_errors
from tenants import errors, wait_queue
from tenants.instruments import CLAIMS
from tenants.models import Assignment
from tenants.states import AssignmentState, ReleaseStep

log = structlog.get_logger(__name__)

PENDING = AssignmentState.PENDING


def fail(assignment: Assignment, error: BaseException) -> None:
    """Abort a pending claim that cannot succeed; the release task cleans up. Does nothing if another process was
    first."""
    public = unexpected_errors.as_public_error(error)
    code = _outcome(public)
    log.warning("claim failed", tenant=assignment.tenant_id, code=code, detail=public.detail)
    give_up(assignment.pk, code, public.detail, output=error.output if isinstance(error, errors.HookFailed) else "")


def _outcome(error: BoilerhouseError) -> str:
    match error:
        case sync_errors.StateMissing() | sync_errors.StateMoved():
            return error.code
        case sync_errors.LocationConflict() | sync_errors.PlaceChanged():
            return error.code
        case sync_errors.SinkThrottled():
            return errors.SinkThrottled.code
        case sync_errors.SyncFailed():
            return errors.RestoreFailed.code
        case pool_errors.EngineUnavailable():
            return errors.EngineUnavailable.code
        case errors.HookFailed() | Internal():
            return error.code
        case pool_errors.NotRunning() | pool_errors.ContainerMissing():
            return errors.ContainerDied.code
    return errors.RestoreFailed.code


def give_up(assignment_id: UUID, code: str, detail: str = "", *, output: str = "") -> bool:
    """Abort a pending claim: the tenant holds nothing when this returns, and the clean-up follows. False if too late.

    ``output`` is a hook's output, stored in the private part of the event.
    """
    is_mine = _move_out(assignment_id, code, detail, output)
    if is_mine:
        pool, source = Assignment.objects.values_list("pool_id", "source").get(pk=assignment_id)
        CLAIMS.labels(pool, source, code).inc()
    return is_mine


def _move_out(assignment_id: UUID, code: str, detail: str, output: str) -> bool:
    with recording():
        rows = Assignment.objects.filter(pk=assignment_id)
        about = rows.values("pool_id", "tenant_id", "container_ref", "generation", "claimed_by").first()
        waiting_in = rows.filter(container_ref=None).values_list("pool_id", flat=True).first()
        if waiting_in is not None:
            # Lock the pool before the claim, in the same order as ``match_waiters``.
            Pool.objects.select_for_update(no_key=True).filter(pk=waiting_in).first()
        ended = rows.filter(container_ref=None).transition(
            PENDING,
            AssignmentState.ENDED,
            secrets=None,
            outcome=code,
            outcome_detail=detail,
            ended_at=Now(),
            owner=None,
        )
        if ended:
            wait_queue.recount(Assignment.objects.values_list("pool_id", flat=True).get(pk=assignment_id))
            _tell(about, code, detail, output)
            wake()
            return True
        moved = rows.transition(
            PENDING,
            AssignmentState.RELEASING,
            secrets=None,
            outcome=code,
            outcome_detail=detail,
            step=ReleaseStep.STOPPING,
            released_by=context.actor(),
            owner=None,
        )
        if moved:
            given_up = rows.select_related("container").get()
            lifecycle.retire(given_up.held_container)
            node_of(given_up).queue.put("save", "tenants.tasks.finish_release", assignment_id)
            _tell(about, code, detail, output)
            wake()
    return bool(moved)


def _tell(about: Any, code: str, detail: str, output: str) -> None:
    emit(
        "container.claim_failed", actor=context.for_whom(about["claimed_by"]), pool_id=about["pool_id"],
        tenant_id=about["tenant_id"], container_id=about["container_ref"] or "", generation=about["generation"],
        code=code, detail=detail, private={"output": output} if output else None,
    )  # fmt: skip


def overdue_outcome(assignment: Assignment) -> tuple[str, str]:
    """The outcome of a pending claim whose deadline has passed."""
    if assignment.waits:
        return errors.ClaimTimeout.code, ""
    if assignment.container_ref is None:
        return timeout_outcome(assignment)
    return errors.ClaimTimeout.code, "The claim has made no progress for the time that the deployment allows."


def timeout_outcome(assignment: Assignment) -> tuple[str, str]:
    pool = assignment.pool
    if pool.trouble == Trouble.ENGINE_DOWN:
        return errors.EngineUnavailable.code, pool.last_error
    if assignment.container_ref is not None:
        return errors.ClaimTimeout.code, ""
    if pool.cannot_start:
        return errors.PoolError.code, f"The pool cannot start containers: {pool.last_error}"
    pull = pool.pull
    words = f"No container became available in time. {pull.words()}." if pull is not None and pull.is_under_way else ""
    return errors.PoolExhausted.code, words
