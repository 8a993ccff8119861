"""Claims: find the tenant's assignment, take a container or join the wait queue; and report the outcome.

The work on the container is in ``preparing``; waiting claims are in ``line``.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import IntegrityError
from django.db.models import F, QuerySet
from django.db.models.functions import Greatest

from boilerhouse.core import audit, clock, context, failpoints, prepared
from boilerhouse.core.events import recording
from boilerhouse.core.prepared import Given
from boilerhouse.process import processes
from boilerhouse.queues.tasks import enqueue
from pools import errors as pool_errors
from pools import lifecycle
from pools.egress import Egress
from pools.models import Pool, WorkloadVersion
from pools.states import Trouble
from syncing import sink_checks
from tenants import aborts, deadlines, errors, pacing, preparation, sink_runs, ttl, validation, wait_queue
from tenants.instruments import CLAIM_PHASE_SECONDS, EXHAUSTED
from tenants.models import Assignment, next_generation
from tenants.states import AssignmentState, Source
from tenants.validation import Claim

PENDING = AssignmentState.PENDING


@dataclass(frozen=True, slots=True)
class Begun:
    """An accepted claim; ``is_new`` is False if it found or joined another."""

    assignment_id: UUID
    generation: int
    is_new: bool
    ignored: tuple[str, ...] = ()
    assigned: Assignment | None = None
    """The assignment, if the claim was decided immediately."""


@prepared.selection
def _pool() -> QuerySet[Pool]:
    return Pool.objects.select_related("workload", "good_version").filter(pk=Given("id", Pool._meta.pk))


@prepared.selection
def _live() -> QuerySet[Assignment]:
    return Assignment.objects.live().filter(tenant_id=Given("tenant", Assignment._meta.get_field("tenant_id")))


def begin(claim: Claim) -> Begun:
    """Accept a claim: take a container, queue for one, or find the tenant's existing assignment.

    If an idle container existed and nothing has to be restored, the claim is ``assigned`` when this returns. Otherwise
    a worker prepares it, and ``settle`` reports the outcome. Raises Invalid, PoolNotFound, and every 409 and 503.
    """
    started = time.monotonic()
    validation.check_tenant_id(claim.tenant_id)
    pool = _pool.first(id=claim.pool_id)
    if pool is None:
        raise pool_errors.PoolNotFound(f"No pool {claim.pool_id}.")
    serving = pool.serving_version
    validation.check_claim(claim, serving.spec)
    if claim.egress is not None:
        validation.check_egress(Egress.from_json(claim.egress), pool, serving.spec, "/network/egress")
    if _live.exists(tenant=claim.tenant_id):
        existing = _assignment_of(claim.tenant_id)
        if existing is not None:
            return _existing(existing, claim)
    if pool.is_draining or pool.is_deleting:
        raise errors.Draining
    if pool.trouble == Trouble.ENGINE_DOWN:
        raise errors.EngineUnavailable(pool.last_error)
    if claim.tenant_key:
        pacing.check_new_claim(claim.tenant_key)
    sink_check = sink_checks.begin_check(pool.pk, claim.tenant_id)  # the sink answers while the database works
    taking = time.monotonic()
    try:
        assignment = _take(claim, pool, serving)
    except IntegrityError:
        existing = _assignment_of(claim.tenant_id)
        if existing is not None:
            return _existing(existing, claim)
        if not Pool.objects.filter(pk=pool.pk).exists():
            raise pool_errors.PoolNotFound(f"No pool {pool.pk}.") from None
        assignment = _take(claim, pool, serving, is_careful=True)
    CLAIM_PHASE_SECONDS.labels("take").observe(time.monotonic() - taking)
    if assignment.container is None:
        EXHAUSTED.labels(pool.pk).inc()
    is_done = assignment.container is not None and preparation.prepare_here(assignment, sink_check, started)
    return Begun(assignment.pk, assignment.generation, is_new=True, assigned=assignment if is_done else None)


def _take(claim: Claim, pool: Pool, serving: WorkloadVersion, *, is_careful: bool = False) -> Assignment:
    """One transaction: the tenant's generation, a container if one is idle, the assignment.

    A pool without an idle container is refilled immediately, otherwise when the claim is decided, because nobody waits
    for it. Constraints protect it: IntegrityError if the tenant already has an assignment, or if the container is
    assigned although its row is idle; ``is_careful`` skips such containers.
    """
    now = clock.now()
    with recording():
        tenant, busy_with = next_generation(claim.tenant_id)
        generation = tenant.generation
        if busy_with is not None:
            raise sink_runs.conflict(busy_with)
        take = wait_queue.take_free if is_careful else lifecycle.take
        # A claim that started to wait after the pool was read is concurrent with this one, not earlier.
        others_wait = pool.waiting and Assignment.objects.waiting(pool.pk).exists()
        container = None if others_wait else take(pool)
        if container and container.version_id == serving.pk:
            container.version = serving
        assignment = Assignment(
            tenant=tenant,
            pool=pool,
            generation=generation,
            config=claim.config,
            secrets=claim.secrets or {},
            metadata=claim.metadata,
            egress=claim.egress,
            egress_bound=None if claim.by_tenant else claim.egress,
            deadline=now + timedelta(milliseconds=claim.timeout_ms),
            waits=claim.wait,
            ends_at=ttl.end_of(claim.ttl_ms),
            end_discards=claim.end_discards,
            owner=processes.current(),
            source=Source.WARM if container else Source.COLD,
            claimed_by=context.actor(),
            created_at=now,
            state_changed_at=now,
        )
        if container:
            wait_queue.bind(assignment, container)
            deadlines.begin(assignment)
        else:
            wait_queue.check_can_wait(pool)
            assignment.owner = None
        assignment.save(force_insert=True)
        if container is None:
            wait_queue.recount(pool.pk)
            enqueue("pool", "pools.tasks.refill", pool.pk)
        payload = {"poolId": pool.pk, "generation": generation, **({"egress": claim.egress} if claim.egress else {})}
        audit.record("tenant.claim", claim.tenant_id, after=payload)
    failpoints.reach("claim.taken")
    return assignment


def _assignment_of(tenant_id: str) -> Assignment | None:
    return Assignment.objects.live().select_related("tenant", "container__version").filter(tenant_id=tenant_id).first()


def _existing(assignment: Assignment, claim: Claim) -> Begun:
    """The result of a second claim: the same container unchanged, a claim to join, or a conflict."""
    if assignment.pool_id != claim.pool_id:
        raise errors.OtherPool(f"The tenant holds a container of pool {assignment.pool_id}.")
    match assignment.state:
        case AssignmentState.RELEASING:
            raise errors.Releasing
        case AssignmentState.RELEASE_FAILED:
            from tenants import releases

            releases.retry(assignment)
            raise errors.ReleaseFailed
    if assignment.state == PENDING:
        until = clock.now() + timedelta(milliseconds=claim.timeout_ms)
        waits = {} if claim.wait else {"waits": False}
        rows = Assignment.objects.filter(pk=assignment.pk, state=PENDING)
        rows.update(deadline=Greatest(F("deadline"), until), **waits)
    ignored = [name for name in ("config", "metadata") if _differs(getattr(claim, name), getattr(assignment, name))]
    if _differs(claim.egress, assignment.egress):
        ignored.append("network")
    if claim.secrets:
        ignored.append("secrets")
    if claim.ttl_ms is not None:
        ignored.append("ttlMs")
    return Begun(assignment.pk, assignment.generation, is_new=False, ignored=tuple(sorted(ignored)))


def _differs(requested: Any, present: Any) -> bool:
    return requested is not None and requested != present


def peek(begun: Begun) -> Assignment:
    """The current claim, pending or assigned. Raises its error if it has failed."""
    return settle(begun, float("inf")) or Assignment.objects.get(pk=begun.assignment_id)


def settle(begun: Begun, until: float) -> Assignment | None:
    """The assigned claim; None while it is pending before ``until``. Raises its error otherwise."""
    if begun.assigned is not None:
        return begun.assigned
    assignment = Assignment.objects.select_related("tenant", "container").filter(pk=begun.assignment_id).first()
    if assignment is None:
        raise errors.Draining  # its pool was deleted
    if assignment.state == PENDING:
        if time.time() < until:
            return None
        if (not begun.is_new or not assignment.waits) and assignment.deadline > clock.now():
            raise errors.OutcomeUnknown  # other requests for it may wait longer; a new claim joins again
        code, detail = aborts.timeout_outcome(assignment)
        aborts.give_up(assignment.pk, code, detail)
        assignment.refresh_from_db()
    if assignment.was_assigned and assignment.state == AssignmentState.ASSIGNED:
        return assignment
    raise errors.OUTCOMES.get(assignment.outcome, errors.ClaimAborted)(assignment.outcome_detail or None)
