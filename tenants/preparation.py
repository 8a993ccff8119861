"""Prepares a claim: brings the tenant's state, config and secrets into its container, then decides the claim.

Order (hazards A): latch → restore → seed → config and secrets → ``claim.json`` → hook → verify alive → one conditional
UPDATE that decides. If that UPDATE matches no row, the row's state is accepted. Nothing is deleted here except a
container of the pending claim that turned out dead or dirty.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from http import HTTPStatus
from typing import Any
from uuid import UUID

import structlog
from django.conf import settings
from django.db import connection, transaction
from django.db.models import QuerySet

from boilerhouse.core import clock, context, failpoints, prepared
from boilerhouse.core.errors import TimedOut
from boilerhouse.core.events import emit, recording
from boilerhouse.core.prepared import Given
from boilerhouse.process import fair_semaphore, ownership, processes
from boilerhouse.process.outage import DATABASE_LOST
from boilerhouse.queues import in_progress, slow_work
from boilerhouse.queues.tasks import enqueue
from boilerhouse.telemetry import tracing
from boilerhouse.telemetry.metering import timed
from boilerhouse.web import node_calls
from pools import errors as pool_errors
from pools import last_output, lifecycle, sizing
from pools.feasibility import seed_path
from pools.nodes import NodeAccess, node_of
from pools.runtime.base import Executed
from pools.spec import WorkloadSpec
from syncing import errors as sync_errors
from syncing import restores, sink_checks, targets
from syncing.sinks.retries import pause_s
from syncing.states import Trigger
from tenants import aborts, deadlines, errors, networks, wait_queue
from tenants.instruments import CLAIM_PHASE_SECONDS, CLAIM_SECONDS, CLAIMS
from tenants.models import Assignment, Tenant
from tenants.states import AssignmentState, Source
from tenants.transfer_target import target_of

log = structlog.get_logger(__name__)

PENDING = AssignmentState.PENDING
ASKED_AGAIN = 8
"""How often a claim retries its requests to a throttling sink: with the pauses, for about ten seconds."""
ORDER_S = 2.0
"""How long a claim waits for another node to take it over; after that, it is in that node's queue as well."""
LOCKED_S = 0.5
"""How long a claim waits for other work on its container before it goes back to the queue."""
ANSWER_TAKES = timedelta(seconds=1)
"""The part of a claim's time reserved for the sink's answer and everything after it."""


@contextmanager
def _phase(name: str) -> Iterator[None]:
    with tracing.span(f"claim {name}"), timed(CLAIM_PHASE_SECONDS.labels(name)):
        yield


def prepare_here(assignment: Assignment, sink_check: sink_checks.SinkCheck, started: float | None) -> bool:
    """The hot path: if nothing has to be restored, finish the claim in this process; otherwise pass it to a worker.

    Returns whether the claim is assigned.
    """
    spec, container = (assignment.version.spec if assignment.version else None), assignment.container
    assert spec
    assert container
    try:
        if _order(assignment, node_of(container)):
            assignment.refresh_from_db()  # as the other node has left it
            return assignment.state == AssignmentState.ASSIGNED
        sink_states: list[sink_checks.SinkState] | None = None
        with sink_check.entered(settings.BOILERHOUSE_CLAIM_THREADS) as may_wait:
            if may_wait:
                with (
                    _phase("survey"),
                    nullcontext() if sink_check.is_near(sink_checks.NEAR_S) else fair_semaphore.yield_slot(),
                ):
                    sink_states = sink_check.answer()
        needs_worker = spec.post_claim is not None or spec.seed is not None
        needs_worker |= sink_states is None or any(not sink_state.is_empty for sink_state in sink_states)
        node = node_of(container)
        needs_worker |= not node.is_here or node.runtime.is_suspect()
        needs_worker |= assignment.egress is not None  # only workers may change the packet filter
        if sink_states is not None and not needs_worker:
            needs_worker = not _finish(assignment, spec, sink_states, started)
    except (pool_errors.Locked, sync_errors.Oversized):
        needs_worker = True
    except errors.OutcomeUnknown:
        raise
    except DATABASE_LOST:
        # Undecided: a worker continues it, and a new claim joins it.
        ownership.give_up((Assignment, assignment.pk))
        raise
    except Exception as error:
        if not (sink_check.may_pass() and _ask_later(assignment, error, 0)):
            aborts.fail(assignment, error)
        return False
    if needs_worker:
        with transaction.atomic():
            Assignment.objects.filter(pk=assignment.pk, state=PENDING, owner=assignment.owner).update(owner=None)
            deadlines.stand_in_line(Assignment.objects.filter(pk=assignment.pk))
            node_of(container).queue.put("claim", "tenants.tasks.prepare", assignment.pk, assignment.generation)
    return not needs_worker


def _order(assignment: Assignment, node: NodeAccess) -> bool:
    """Whether another node, where the container is, has taken the claim over at once. If not, its queue has to."""
    peer = None if node.is_here else node_calls.peer_of(node.id)
    if peer is None:
        return False
    Assignment.objects.filter(pk=assignment.pk, state=PENDING, owner=assignment.owner).update(owner=None)
    path = f"/node/v1/claims/{assignment.pk}"
    answer = node_calls.post(peer, path, {"generation": assignment.generation}, ORDER_S)
    return answer is not None and answer.status == HTTPStatus.NO_CONTENT


def take_order(assignment_id: UUID, generation: int) -> bool:
    """Prepare a pending claim of a container of this node, whose request came to another.

    It is assigned, or with a worker here, or failed, when this returns. False if it is not pending, or another process
    has it.
    """
    assignment = _adopt(assignment_id, generation)
    if assignment is None:
        return False
    with context.acting_for(assignment.claimed_by):
        if not node_of(assignment).is_here:
            _leave_to_its_node(assignment, 0)
            return True
        prepare_here(assignment, sink_checks.begin_check(assignment.pool_id, assignment.tenant_id), None)
    return True


def _ask_later(assignment: Assignment, error: Exception, attempts: int) -> bool:
    """Have a worker query the sinks again after a pause, if that can help and the claim has the time.

    Nothing waits meanwhile; if the message is lost, the claim is resumed like one whose process is dead.
    """
    may_help = sync_errors.SinkThrottled if attempts else sync_errors.SinkStumbled
    if not isinstance(error, may_help) or attempts >= ASKED_AGAIN:
        return False
    pause = timedelta(seconds=max(pause_s(attempts + 1), error.after_s))
    if clock.now() + pause + ANSWER_TAKES > assignment.deadline:
        return False
    log.info("sink request retried", tenant=assignment.tenant_id, asked=attempts, code=error.code, detail=error.detail)
    Assignment.objects.filter(pk=assignment.pk, state=PENDING, owner=assignment.owner).update(owner=None)
    arguments = node_of(assignment), assignment.pk, assignment.generation, attempts + 1
    later = threading.Timer(pause.total_seconds(), _send, arguments)
    later.daemon = True
    later.start()
    return True


def _send(node: NodeAccess, *arguments: Any) -> None:
    try:
        node.queue.hand_on("claim", "tenants.tasks.prepare", *arguments)
    except DATABASE_LOST as error:
        log.warning("claim left to be resumed", error=type(error).__name__)
    finally:
        connection.close()


@in_progress.alone
def prepare(assignment_id: UUID, generation: int, attempts: int = 0) -> None:
    """Restore, provision and decide a pending claim, on a worker. Can be repeated, also by another process.

    ``attempts``: how often its sinks were queried before without an answer.
    """
    assignment = _adopt(assignment_id, generation)
    with context.acting_for(assignment.claimed_by if assignment else ""):
        _prepare(assignment, attempts)


def _prepare(assignment: Assignment | None, attempts: int) -> None:
    while assignment is not None and assignment.version is not None:
        structlog.contextvars.bind_contextvars(
            tenant=assignment.tenant_id, generation=assignment.generation, container=str(assignment.container_ref)
        )
        if not node_of(assignment).is_here:
            _leave_to_its_node(assignment, attempts)
            return
        deadlines.take_up(assignment)
        sink_states: list[sink_checks.SinkState] | None = None
        try:
            tenant_id = assignment.tenant_id
            sink_check = sink_checks.begin_check(assignment.pool_id, tenant_id, sink_checks.patience_s(tenant_id))
            with slow_work.entered_for(sink_check.far_ends) as may_work:
                if not may_work:
                    _back_to_the_queue(assignment, attempts)
                    return
                with slow_work.entered_slow(is_slow=sink_check.is_slow) as may_ask:
                    if not may_ask:
                        _back_to_the_queue(assignment, attempts)
                        return
                    with _phase("survey"):
                        sink_states = sink_check.answer()
                with slow_work.entered(restores.size_of(sink_states)) as may_begin, deadlines.moving(assignment):
                    if not may_begin:
                        _stand_in_line(assignment)
                        return
                    if _finish(assignment, assignment.version.spec, sink_states, None):
                        return
            if not _is_pending(assignment):
                return
            _replace_container(assignment)
        except pool_errors.Locked:
            _back_to_the_queue(assignment, attempts)
            return
        except DATABASE_LOST:
            raise  # undecided: the next owner continues, or the deadline ends it
        except Exception as error:  # whatever failed, the claim must not stay pending under a living owner
            if sink_states is not None or not _ask_later(assignment, error, attempts):
                aborts.fail(assignment, error)
            return
        assignment = _adopt(assignment.pk, assignment.generation)


def _back_to_the_queue(assignment: Assignment, attempts: int) -> None:
    """Free the worker while the maximum number already waits for the claim's sink, or other work uses its container."""
    stood_s = (clock.now() - assignment.created_at).total_seconds()
    with transaction.atomic():
        _stand_in_line(assignment)
        arguments = assignment.pk, assignment.generation, attempts
        pause_s = slow_work.pause_s(stood_s)
        node_of(assignment).queue.put("claim", "tenants.tasks.prepare", *arguments, after_s=pause_s)


def _leave_to_its_node(assignment: Assignment, attempts: int) -> None:
    """The container is not visible here, so nothing is decided about it."""
    _stand_in_line(assignment)
    arguments = assignment.pk, assignment.generation, attempts
    node_of(assignment).queue.hand_on("claim", "tenants.tasks.prepare", *arguments)


def _stand_in_line(assignment: Assignment) -> None:
    """The controller requeues it after a while."""
    mine = Assignment.objects.filter(pk=assignment.pk, state=PENDING, owner=processes.current())
    deadlines.stand_in_line(mine)
    mine.update(owner=None)


def _adopt(assignment_id: UUID, generation: int) -> Assignment | None:
    """The claim, owned by this process, if it is pending with a container and no living process prepares it."""
    rows = Assignment.objects.filter(generation=generation, state=PENDING, container_ref__isnull=False)
    if not ownership.adopt(rows, assignment_id):
        return None
    return Assignment.objects.select_related("container__pool", "version").get(pk=assignment_id)


@prepared.selection
def _pending() -> QuerySet[Assignment]:
    field = Assignment._meta.get_field
    return Assignment.objects.filter(
        pk=Given("id", Assignment._meta.pk), generation=Given("generation", field("generation")), state=PENDING,
        deadline__gt=Given("now", field("deadline")),
    )  # fmt: skip


def _is_pending(assignment: Assignment) -> bool:
    return _pending.exists(id=assignment.pk, generation=assignment.generation, now=clock.now())


def _finish(
    assignment: Assignment, spec: WorkloadSpec, sink_states: list[sink_checks.SinkState], started: float | None
) -> bool:
    """Latch, restore, provision, verify, decide. False: the container is dead or dirty, or the row has changed.

    Raises Locked while another process works on the container.
    """
    container_id, node = assignment.held_container, node_of(assignment)
    assert assignment.uid is not None
    _raise_generation(assignment, sink_states)
    try:
        with node.volumes.locked(container_id, within_s=LOCKED_S) as lock:
            if not _is_pending(assignment):
                return False
            node.volumes.check(container_id, spec)
            node.volumes.latch(container_id, assignment.tenant_id, assignment.generation)
            failpoints.reach("claim.latched")
            if assignment.egress is not None:
                with _phase("network"):
                    networks.enforce(assignment)
            target = target_of(assignment, lock, is_stopped=False)
            restored: restores.Restored | None = None
            if any(not sink_state.is_empty for sink_state in sink_states):
                with _phase("restore"):
                    restored = restores.restore(
                        target,
                        sink_states,
                        Trigger.CLAIM,
                        lambda: _is_pending(assignment),
                        is_patient=not assignment.waits,
                    )
            elif spec.seed and not any(sink_state.marker for sink_state in sink_states):
                with _phase("seed"):
                    _plant_seed(assignment, spec)
            failpoints.reach("claim.restored")
            if spec.volume("secrets"):
                with _phase("provision"):
                    _provision(assignment, spec)
            failpoints.reach("claim.provisioned")
            if spec.post_claim is not None:
                with _phase("hook"):
                    _run_hook(assignment, spec)
            remaining_s = max(1.0, (assignment.deadline - clock.now()).total_seconds())
            with _phase("verify"):
                if not node.commands.is_running(container_id, remaining_s):
                    return False
            with _phase("decide"):
                return _decide(assignment, sink_states, target, restored, started)
    except (pool_errors.DirectoryGone, sync_errors.DirectoryMissing, pool_errors.DirtyContainer) as error:
        log.error("container refused", code=error.code, container=str(container_id))
        return False


def _raise_generation(assignment: Assignment, sink_states: list[sink_checks.SinkState]) -> None:
    """Above the generation of every marker: a database that was reset must not make an old claim look newer
    (hazards.md#a2)."""
    highest = max((sink_state.marker.generation for sink_state in sink_states if sink_state.marker), default=0)
    if highest < assignment.generation:
        return
    with transaction.atomic():
        raised = highest + 1
        rows = Assignment.objects.filter(pk=assignment.pk, generation=assignment.generation, state=PENDING)
        if rows.update(generation=raised):
            Tenant.objects.filter(pk=assignment.tenant_id, generation__lt=raised).update(generation=raised)
            assignment.generation = raised


def _provision(assignment: Assignment, spec: WorkloadSpec) -> None:
    assert assignment.uid is not None
    claim = {
        "tenantId": assignment.tenant_id,
        "poolId": assignment.pool_id,
        "containerId": str(assignment.container_ref),
        "generation": assignment.generation,
        "claimedAt": clock.now().isoformat().replace("+00:00", "Z"),
    }
    owner, secrets = spec.owner(assignment.uid), assignment.secrets or {}
    node_of(assignment).volumes.provision(assignment.held_container, owner, assignment.config, secrets, claim)


def _plant_seed(assignment: Assignment, spec: WorkloadSpec) -> None:
    """First use: nothing was restored and nothing was ever saved, so copy in the workload's seed."""
    assert spec.seed
    assert assignment.uid is not None
    source = seed_path(spec.seed)
    if not source.is_dir():
        raise pool_errors.SeedMissing(f"The seed directory {source} does not exist.")
    node_of(assignment).volumes.seed(assignment.held_container, spec.owner(assignment.uid), source, "state")


def _run_hook(assignment: Assignment, spec: WorkloadSpec) -> None:
    if spec.post_claim is None:
        return
    hook = spec.post_claim
    deadlines.allow(assignment, timedelta(milliseconds=hook.timeout_ms))
    try:
        result = node_of(assignment).commands.run(
            assignment.held_container, hook.command, hook.timeout_ms, limit_bytes=4000
        )
    except TimedOut as error:
        raise errors.HookFailed(f"postClaim did not end within {hook.timeout_ms} ms.") from error
    if result.exit_code != 0:
        raise _hook_failed(result)


def _hook_failed(result: Executed) -> errors.HookFailed:
    ended = f"postClaim ended with exit code {result.exit_code}"
    if result.refusal:
        return errors.HookFailed(f"{ended}: {result.refusal}")
    output = last_output.pick(result.stderr if result.stderr.strip() else result.stdout)
    where = " Its output is in the event container.claim_failed, for roles that may read logs." if output else ""
    return errors.HookFailed(f"{ended}.{where}", output)


def _decide(
    assignment: Assignment,
    sink_states: list[sink_checks.SinkState],
    target: targets.TransferTarget,
    restored: restores.Restored | None,
    started: float | None,
) -> bool:
    """The one UPDATE that assigns the claim. False if it came too late."""
    container = assignment.container
    assert container is not None
    now = clock.now()
    elapsed = time.monotonic() - started if started is not None else (now - assignment.created_at).total_seconds()
    latency = max(1, round(elapsed * 1000))
    totals = {"files": restored.files, "bytes": restored.bytes} if restored else None
    try:
        with recording():
            rows = Assignment.objects.filter(
                pk=assignment.pk, generation=assignment.generation, container_ref=container.pk, deadline__gt=now
            )
            decided: dict[str, Any] = {
                "secrets": None,
                "was_assigned": True,
                "assigned_at": now,
                "last_activity_at": now,
                "endpoints": container.endpoints(),
                "restored": totals,
                "latency_ms": latency,
                "owner": None,
            }
            won = rows.transition(PENDING, AssignmentState.ASSIGNED, **decided)
            if not won:
                return False
            if restored is None:
                restores.record_restored(sink_states, target)
            emit(
                "container.claimed",
                pool_id=assignment.pool_id,
                container_id=assignment.container_ref,
                tenant_id=assignment.tenant_id,
                generation=assignment.generation,
                source=assignment.source,
                latencyMs=latency,
                restored=totals,
            )
            if sizing.may_lack(container.pool):
                enqueue("pool", "pools.tasks.refill", assignment.pool_id)
    except DATABASE_LOST as error:
        if not _read_outcome(assignment, error):
            return False
    failpoints.reach("claim.decided")
    assignment.state = AssignmentState.ASSIGNED
    CLAIMS.labels(assignment.pool_id, assignment.source, "assigned").inc()
    CLAIM_SECONDS.labels(assignment.pool_id, assignment.source).observe(elapsed)
    for name, value in decided.items():
        setattr(assignment, name, value)
    return True


def _read_outcome(assignment: Assignment, error: Exception) -> bool:
    """The commit's answer was lost: read the row until the deadline (hazards.md#a7)."""
    while clock.now() < assignment.deadline:
        connection.close()
        try:
            state = Assignment.objects.filter(pk=assignment.pk).values_list("state", flat=True).first()
        except DATABASE_LOST:
            time.sleep(0.2)
            continue
        return state == AssignmentState.ASSIGNED
    raise errors.OutcomeUnknown from error


def _replace_container(assignment: Assignment) -> None:
    """The container died or is dirty: remove or quarantine it, and take another for the same claim (hazards.md#a1,
    #a11)."""
    old, node = assignment.held_container, node_of(assignment)
    if not node.volumes.is_anothers(old, assignment.tenant_id, assignment.generation):
        how = last_output.ended(node.runtime.inspect(lifecycle.runtime_name(old)))
        lifecycle.destroy_at_engine(node, old)
        with suppress(pool_errors.DirectoryGone), node.volumes.locked(old, within_s=LOCKED_S):
            node.volumes.put_aside(old, assignment.tenant_id)
        lifecycle.wipe(node, old)
        node.host.release_uid(old)
        detail = f"A container died while its claim was being prepared, with {how}; the claim gets another one."
    else:
        lifecycle.quarantine(node, old)
        detail = "A container that has held another tenant's data was about to be assigned; it is quarantined."
    with recording():
        # The claim may have been aborted meanwhile: then its release removes the container and needs its name.
        ours = Assignment.objects.filter(
            pk=assignment.pk, generation=assignment.generation, state=PENDING, container_ref=old,
            owner=processes.current(),
        )  # fmt: skip
        if not ours.update(container=None, container_ref=None, source=Source.COLD, owner=None):
            return
        emit("pool.warning", pool_id=assignment.pool_id, container_id=old, actor=context.SYSTEM, detail=detail)
        lifecycle.retire(old)
        lifecycle.forget(old)
        enqueue("pool", "pools.tasks.refill", assignment.pool_id)
    wait_queue.match_waiters(assignment.pool_id)
