"""Claim: take a container, bring the tenant's state, config and secrets into it, and say so once.

Order (hazards A): validate → take → latch → restore → config and secrets → ``claim.json`` → hook → verify alive → one
conditional UPDATE that decides. Whoever loses that UPDATE obeys the row. This module never deletes anything but the
container of a claim that it is preparing; cleaning up is the release's work.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import jsonschema
import structlog
from django.db import IntegrityError, InterfaceError, OperationalError, connection, transaction
from django.db.models import F, Q
from django.db.models.functions import Greatest, Now
from django.utils import timezone

from boilerhouse.core import failpoints, processes
from boilerhouse.core.deployment import node_id
from boilerhouse.core.errors import FieldError, Invalid, TimedOut
from boilerhouse.core.events import emit, recording, wake
from boilerhouse.core.ids import TENANT_ID
from boilerhouse.core.outage import DATABASE_LOST, renounce
from boilerhouse.core.tasks import enqueue
from pools import errors as pool_errors
from pools import host, lifecycle, volumes
from pools.feasibility import seed_path
from pools.models import Container, Pool, WorkloadVersion
from pools.runtime import get_runtime
from pools.spec import WorkloadSpec
from pools.states import Trouble
from syncing import errors as sync_errors
from syncing import transfers
from syncing.states import Trigger
from tenants import errors
from tenants.models import Assignment, Tenant, next_generation
from tenants.states import AssignmentState, ReleaseStep, Source

log = structlog.get_logger(__name__)

SECRET_NAME = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")
RESERVED_SECRETS = frozenset({"config.json", "claim.json"})
MAX_SECRET_BYTES = 64 * 1024
GRACE_S = 2
PENDING = AssignmentState.PENDING


@dataclass(frozen=True, slots=True)
class Claim:
    """What a client asks for."""

    tenant_id: str
    pool_id: str
    config: dict[str, Any] | None = None
    secrets: dict[str, str] | None = None
    metadata: dict[str, Any] | None = None
    timeout_ms: int = 30_000


@dataclass(frozen=True, slots=True)
class Begun:
    """A claim that was accepted; ``is_new`` is False when it found or joined another."""

    assignment_id: UUID
    generation: int
    is_new: bool
    ignored: tuple[str, ...] = ()
    assigned: Assignment | None = None
    """The claim itself where it was decided at once."""


# Validation -----------------------------------------------------------------------------------------


def check_tenant_id(tenant_id: str) -> str:
    """Raise Invalid for what cannot be a tenant's id."""
    if not TENANT_ID.match(tenant_id):
        detail = "A tenant id has 1 to 128 of A-Z a-z 0-9 . _ @ : - and starts with a letter or digit."
        raise Invalid(FieldError("", detail, "tenant_id"), detail=detail)
    return tenant_id


def check_claim(claim: Claim, spec: WorkloadSpec) -> None:
    """Raise Invalid with a pointer for each thing in config or secrets that cannot be."""
    wrong: list[FieldError] = []
    has_volume = spec.volume("secrets") is not None
    if claim.config is not None and not has_volume:
        wrong.append(FieldError("/config", "The workload has no secrets volume to put it in.", "no_secrets_volume"))
    if claim.secrets and not has_volume:
        wrong.append(FieldError("/secrets", "The workload has no secrets volume to put them in.", "no_secrets_volume"))
    for name, value in (claim.secrets or {}).items():
        pointer = "/secrets/" + name.replace("~", "~0").replace("/", "~1")
        if not SECRET_NAME.match(name) or name in RESERVED_SECRETS:
            wrong.append(FieldError(pointer, "This name cannot be used for a secret.", "secret_name"))
        elif len(value.encode("utf-8", "surrogatepass")) > MAX_SECRET_BYTES:
            wrong.append(FieldError(pointer, f"A secret has {MAX_SECRET_BYTES} bytes at most.", "too_large"))
    if spec.config_schema is not None:
        validator = jsonschema.Draft202012Validator(spec.config_schema)
        for error in sorted(validator.iter_errors(claim.config or {}), key=lambda e: list(map(str, e.absolute_path))):
            path = "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in error.absolute_path)
            wrong.append(FieldError(f"/config{path}", error.message[:300], str(error.validator)))
    if wrong:
        raise Invalid(*wrong)


# Begin ----------------------------------------------------------------------------------------------


def begin(claim: Claim) -> Begun:
    """Accept a claim: take a container or queue for one, or find what the tenant holds already.

    If a container was at hand and nothing has to be restored, it is ``assigned`` when this returns; otherwise a
    worker prepares it, and ``settle`` says what became of it. Raises Invalid, PoolNotFound, and every 409 and 503.
    """
    started = time.monotonic()
    check_tenant_id(claim.tenant_id)
    pool = Pool.objects.select_related("workload", "good_version").filter(pk=claim.pool_id).first()
    if pool is None:
        raise pool_errors.PoolNotFound(f"There is no pool {claim.pool_id}.")
    serving = pool.serving_version
    check_claim(claim, serving.spec)
    if Assignment.objects.live().filter(tenant_id=claim.tenant_id).exists():
        held = _held(claim.tenant_id)
        if held is not None:
            return _existing(held, claim)
    if pool.is_draining or pool.is_deleting:
        raise errors.Draining
    if pool.trouble == Trouble.ENGINE_DOWN:
        raise errors.EngineUnavailable(pool.last_error)
    survey = transfers.begin_survey(pool.pk, claim.tenant_id)  # the sinks answer while the database works
    try:
        assignment = _take(claim, pool, serving)
    except IntegrityError:
        held = _held(claim.tenant_id)
        if held is not None:
            return _existing(held, claim)
        if not Pool.objects.filter(pk=pool.pk).exists():
            raise pool_errors.PoolNotFound(f"There is no pool {pool.pk}.") from None
        assignment = _take(claim, pool, serving, is_careful=True)
    is_done = assignment.container is not None and _prepare_here(assignment, survey, started)
    return Begun(assignment.pk, assignment.generation, is_new=True, assigned=assignment if is_done else None)


def _take(claim: Claim, pool: Pool, serving: WorkloadVersion, *, is_careful: bool = False) -> Assignment:
    """One transaction: the tenant's generation, a container if one is idle, the assignment, and a refill.

    Constraints guard it: IntegrityError when the tenant holds something, or when the container that was taken is held
    although its row said idle; ``is_careful`` passes over such containers.
    """
    now = timezone.now()
    with recording():
        generation = next_generation(claim.tenant_id)
        take = _take_free if is_careful else lifecycle.take
        container = None if Assignment.objects.waiting(pool.pk).exists() else take(pool)
        if container and container.version_id == serving.pk:
            container.version = serving
        assignment = Assignment(
            tenant_id=claim.tenant_id,
            pool=pool,
            generation=generation,
            config=claim.config,
            secrets=claim.secrets or {},
            metadata=claim.metadata,
            deadline=now + timedelta(milliseconds=claim.timeout_ms),
            owner=processes.current(),
            source=Source.WARM if container else Source.COLD,
            created_at=now,
            state_changed_at=now,
        )
        if container:
            _bind(assignment, container)
        else:
            _check_can_wait(pool)
            assignment.owner = None
        assignment.save(force_insert=True)
        if container is None:
            _recount(pool.pk)
        enqueue("pool", "pools.tasks.refill", pool.pk)
    failpoints.reach("claim.taken")
    return assignment


def _take_free(pool: Pool) -> Container | None:
    """An idle container that no live assignment names, whatever its row says."""
    while (container := lifecycle.take(pool)) is not None:
        if not Assignment.objects.live().filter(container_ref=container.pk).exists():
            return container
        log.error("a held container stood as idle; it is claimed again", container=str(container.pk))
    return None


def _held(tenant_id: str) -> Assignment | None:
    return Assignment.objects.live().select_related("container__version").filter(tenant_id=tenant_id).first()


def _bind(assignment: Assignment, container: Container) -> None:
    assignment.container = container
    assignment.container_ref = container.pk
    assignment.version = container.version
    assignment.uid = container.uid


def _check_can_wait(pool: Pool) -> None:
    starting = pool.containers.filter(state="starting").exists()
    if pool.cannot_start and not starting:
        raise errors.PoolError(f"The pool cannot start containers: {pool.last_error}")
    if pool.is_paused and not starting:
        raise errors.PoolPaused


def _existing(assignment: Assignment, claim: Claim) -> Begun:
    """What a second claim finds: the same container untouched, a claim to join, or a conflict."""
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
        until = timezone.now() + timedelta(milliseconds=claim.timeout_ms)
        Assignment.objects.filter(pk=assignment.pk, state=PENDING).update(deadline=Greatest(F("deadline"), until))
    ignored = [name for name in ("config", "metadata") if _differs(getattr(claim, name), getattr(assignment, name))]
    if claim.secrets:
        ignored.append("secrets")
    return Begun(assignment.pk, assignment.generation, is_new=False, ignored=tuple(sorted(ignored)))


def _differs(asked: Any, held: Any) -> bool:
    return asked is not None and asked != held


# Waiting for a container ----------------------------------------------------------------------------


def match_waiters(pool_id: str) -> int:
    """Give idle containers to waiting claims, first come first; return how many were served.

    Any process may call it at any time: it is decided from rows under the pool's lock, so no wake-up can be lost
    (hazard D8).
    """
    served = 0
    with recording():
        pool = Pool.objects.select_for_update(no_key=True).filter(pk=pool_id).first()
        if pool is None:
            return 0
        # Who gives up locks the pool first, too: none of these rows can end while a container is bound to it.
        for assignment in Assignment.objects.waiting(pool_id).filter(deadline__gt=timezone.now()):
            container = _take_free(pool)
            if container is None:
                break
            _bind(assignment, container)
            bound = Assignment.objects.filter(pk=assignment.pk, state=PENDING, container_ref=None).update(
                container=container, container_ref=container.pk, version_id=container.version_id, uid=container.uid
            )
            assert bound, "a waiting claim changed under the pool's lock"
            enqueue("claim", "tenants.tasks.prepare", assignment.pk, assignment.generation)
            served += 1
        _recount(pool_id)
        if served:
            enqueue("pool", "pools.tasks.refill", pool_id)
    return served


def _recount(pool_id: str) -> None:
    # Locked before counting: whoever counts second must see what the first one committed.
    Pool.objects.select_for_update(no_key=True).filter(pk=pool_id).first()
    count = Assignment.objects.waiting(pool_id).count()
    Pool.objects.filter(pk=pool_id).exclude(waiting=count).update(waiting=count)


def settled(keys: set[Hashable]) -> set[Hashable]:
    """Which of these assignments are no longer pending; serves those that wait for a container on the way."""
    rows = list(
        Assignment.objects.filter(pk__in=list(map(str, keys))).values_list("pk", "state", "container_ref", "pool_id")
    )
    for pool_id in {pool for _, state, container, pool in rows if state == PENDING and container is None}:
        if Container.objects.idle().filter(pool_id=pool_id).exists():
            match_waiters(pool_id)
    return {pk for pk, state, _, _ in rows if state != PENDING} | (keys - {pk for pk, *_ in rows})


# Prepare --------------------------------------------------------------------------------------------


def _prepare_here(assignment: Assignment, survey: Callable[[], list[transfers.Finding]], started: float) -> bool:
    """The hot path: if nothing has to be restored, finish the claim in this process; else hand it to a worker.

    Returns whether the claim is assigned.
    """
    spec, container = (assignment.version.spec if assignment.version else None), assignment.container
    assert spec
    assert container
    try:
        findings = survey()
        needs_worker = spec.post_claim is not None or spec.seed is not None
        needs_worker |= any(not finding.is_empty for finding in findings)
        needs_worker |= container.node != node_id() or get_runtime().is_suspect()
        if not needs_worker:
            needs_worker = not _finish(assignment, spec, findings, started)
    except errors.OutcomeUnknown:
        raise
    except DATABASE_LOST:
        renounce()  # undecided: a worker carries it on, and a new claim joins it
        raise
    except Exception as error:
        fail(assignment, error)
        return False
    if needs_worker:
        with transaction.atomic():
            Assignment.objects.filter(pk=assignment.pk, owner=assignment.owner).update(owner=None)
            enqueue("claim", "tenants.tasks.prepare", assignment.pk, assignment.generation)
    return not needs_worker


def prepare(assignment_id: UUID, generation: int) -> None:
    """On a worker: restore, provision and decide a pending claim; safe to run again, by another process too."""
    assignment = _adopt(assignment_id, generation)
    if assignment is None:
        return
    structlog.contextvars.bind_contextvars(tenant=assignment.tenant_id, generation=generation)
    while assignment.container_ref is not None and assignment.version is not None:
        structlog.contextvars.bind_contextvars(container=str(assignment.container_ref))
        try:
            findings = transfers.survey(assignment.pool_id, assignment.tenant_id)
            if _finish(assignment, assignment.version.spec, findings, None):
                return
        except DATABASE_LOST:
            raise  # undecided: whoever takes over goes on, or the deadline ends it
        except Exception as error:  # whatever it was, the claim must not stay pending under a living owner
            fail(assignment, error)
            return
        if not _is_pending(assignment):
            return
        _replace_container(assignment)
        assignment = Assignment.objects.select_related("container", "version").get(pk=assignment_id)


def _adopt(assignment_id: UUID, generation: int) -> Assignment | None:
    rows = Assignment.objects.filter(pk=assignment_id, generation=generation, state=PENDING)
    me = processes.current()
    if not rows.filter(Q(owner=None) | ~Q(owner__in=processes.living() - {me})).update(owner=me):
        return None
    return Assignment.objects.select_related("container__pool", "version").get(pk=assignment_id)


def _is_pending(assignment: Assignment) -> bool:
    now = timezone.now()
    rows = Assignment.objects.filter(pk=assignment.pk, generation=assignment.generation, state=PENDING)
    return rows.filter(deadline__gt=now).exists()


def _finish(
    assignment: Assignment, spec: WorkloadSpec, findings: list[transfers.Finding], started: float | None
) -> bool:
    """Latch, restore, provision, verify, decide. False: the container is dead or dirty, or the row moved on."""
    container_id = assignment.held_container
    assert assignment.uid is not None
    _raise_generation(assignment, findings)
    try:
        with volumes.locked(container_id) as lock:
            if not _is_pending(assignment):
                return False
            volumes.latch(container_id, assignment.tenant_id, assignment.generation)
            failpoints.reach("claim.latched")
            site = transfers.Site(
                container_id, assignment.uid, assignment.pool_id, spec, assignment.tenant_id,
                assignment.generation, lock, is_stopped=False,
            )  # fmt: skip
            restored: transfers.Restored | None = None
            if any(not finding.is_empty for finding in findings):
                restored = transfers.restore(site, findings, Trigger.CLAIM, lambda: _is_pending(assignment))
            elif spec.seed and not any(finding.marker for finding in findings):
                _plant_seed(assignment, spec)
            failpoints.reach("claim.restored")
            if spec.volume("secrets"):
                _provision(assignment)
            failpoints.reach("claim.provisioned")
            _run_hook(assignment, spec)
            left = (assignment.deadline - timezone.now()).total_seconds()
            seen = get_runtime().inspect(lifecycle.runtime_name(container_id), timeout_s=left)
            if seen is None or not seen.is_running:
                return False
            return _decide(assignment, findings, site, restored, started)
    except (pool_errors.DirectoryGone, pool_errors.DirtyContainer) as error:
        log.error("container refused", code=error.code, container=str(container_id))
        return False


def _raise_generation(assignment: Assignment, findings: list[transfers.Finding]) -> None:
    """Above every marker's: a database that was set back must not make an old claim look newer (hazard A2)."""
    seen = max((finding.marker.generation for finding in findings if finding.marker), default=0)
    if seen < assignment.generation:
        return
    with transaction.atomic():
        raised = seen + 1
        rows = Assignment.objects.filter(pk=assignment.pk, generation=assignment.generation, state=PENDING)
        if rows.update(generation=raised):
            Tenant.objects.filter(pk=assignment.tenant_id, generation__lt=raised).update(generation=raised)
            assignment.generation = raised


def _provision(assignment: Assignment) -> None:
    assert assignment.uid is not None
    claim = {
        "tenantId": assignment.tenant_id,
        "poolId": assignment.pool_id,
        "containerId": str(assignment.container_ref),
        "generation": assignment.generation,
        "claimedAt": timezone.now().isoformat().replace("+00:00", "Z"),
    }
    volumes.provision(assignment.held_container, assignment.uid, assignment.config, assignment.secrets or {}, claim)


def _plant_seed(assignment: Assignment, spec: WorkloadSpec) -> None:
    """First use: nothing was restored and nothing was ever saved, so the workload's own files go in."""
    assert spec.seed
    assert assignment.uid is not None
    source = seed_path(spec.seed)
    if not source.is_dir():
        raise pool_errors.SeedMissing(f"The seed directory {source} is gone.")
    volumes.plant(assignment.held_container, assignment.uid, source, "state")


def _run_hook(assignment: Assignment, spec: WorkloadSpec) -> None:
    if spec.post_claim is None:
        return
    hook, name = spec.post_claim, lifecycle.runtime_name(assignment.held_container)
    try:
        done = get_runtime().exec(name, hook.command, hook.timeout_ms, 4000)
    except TimedOut as error:
        raise errors.HookFailed(f"postClaim did not end within {hook.timeout_ms} ms.") from error
    if done.exit_code != 0:
        said = (done.stderr or done.stdout).decode(errors="replace")[:300]
        raise errors.HookFailed(f"postClaim ended with exit code {done.exit_code}: {said}")


def _decide(
    assignment: Assignment,
    findings: list[transfers.Finding],
    site: transfers.Site,
    restored: transfers.Restored | None,
    started: float | None,
) -> bool:
    """The one UPDATE that makes the claim true. False when it came too late."""
    container = assignment.container
    assert container is not None
    now = timezone.now()
    elapsed = time.monotonic() - started if started is not None else (now - assignment.created_at).total_seconds()
    latency = max(1, round(elapsed * 1000))
    shown = {"files": restored.files, "bytes": restored.bytes} if restored else None
    try:
        with recording():
            rows = Assignment.objects.filter(pk=assignment.pk, generation=assignment.generation, deadline__gt=now)
            decided: dict[str, Any] = {
                "secrets": None,
                "was_assigned": True,
                "assigned_at": now,
                "last_activity_at": now,
                "endpoints": container.endpoints(),
                "restored": shown,
                "latency_ms": latency,
                "owner": None,
            }
            won = rows.transition(PENDING, AssignmentState.ASSIGNED, **decided)
            if not won:
                return False
            if restored is None:
                transfers.record_restored(findings, site)
            emit(
                "container.claimed",
                pool_id=assignment.pool_id,
                container_id=assignment.container_ref,
                tenant_id=assignment.tenant_id,
                generation=assignment.generation,
                source=assignment.source,
                latencyMs=latency,
                restored=shown,
            )
    except (OperationalError, InterfaceError) as error:
        if not _read_outcome(assignment, error):
            return False
    failpoints.reach("claim.decided")
    assignment.state = AssignmentState.ASSIGNED
    for name, value in decided.items():
        setattr(assignment, name, value)
    return True


def _read_outcome(assignment: Assignment, error: Exception) -> bool:
    """The commit's answer was lost: ask again until the deadline (hazard A7)."""
    while time.time() < assignment.deadline.timestamp():
        connection.close()
        try:
            state = Assignment.objects.filter(pk=assignment.pk).values_list("state", flat=True).first()
        except (OperationalError, InterfaceError):
            time.sleep(0.2)
            continue
        return state == AssignmentState.ASSIGNED
    raise errors.OutcomeUnknown from error


def _replace_container(assignment: Assignment) -> None:
    """The container died, or is not clean: put it away and take another within the same claim (hazards A1, A11)."""
    old = assignment.held_container
    ours = json.dumps({"tenantId": assignment.tenant_id, "generation": assignment.generation})
    if volumes.read_latch(old) in (None, ours):
        lifecycle.destroy_at_engine(old)
        lifecycle.wipe(old)
        host.release_uid(old)
        detail = "A container died before its claim was done; another was taken."
    else:
        lifecycle.quarantine(old)
        detail = "A container that had seen another tenant was about to be handed out; it is quarantined."
    with recording():
        emit("pool.warning", pool_id=assignment.pool_id, container_id=old, detail=detail)
        lifecycle.retire(old)
        Assignment.objects.filter(pk=assignment.pk).update(
            container=None, container_ref=None, source=Source.COLD, owner=None
        )
        lifecycle.forget(old)
    match_waiters(assignment.pool_id)


# Failing and settling -------------------------------------------------------------------------------


def fail(assignment: Assignment, error: BaseException) -> None:
    """Fence a pending claim that cannot succeed; the release task cleans up. Loses quietly to whoever was first."""
    detail = str(getattr(error, "detail", error))
    code = _outcome(error)
    log.warning("claim failed", tenant=assignment.tenant_id, code=code, detail=detail)
    give_up(assignment.pk, code, detail)


def _outcome(error: BaseException) -> str:
    match error:
        case sync_errors.StateMissing() | sync_errors.StateMoved():
            return error.code
        case sync_errors.SyncFailed():
            return errors.RestoreFailed.code
        case pool_errors.EngineUnavailable():
            return errors.EngineUnavailable.code
        case errors.HookFailed():
            return error.code
        case pool_errors.NotRunning() | pool_errors.ContainerMissing():
            return errors.ContainerDied.code
    return errors.RestoreFailed.code


def give_up(assignment_id: UUID, code: str, detail: str = "") -> bool:
    """Move a pending claim out of the way: nothing is held when this returns, clean-up follows. False if too late."""
    with recording():
        rows = Assignment.objects.filter(pk=assignment_id)
        waiting_in = rows.filter(container_ref=None).values_list("pool_id", flat=True).first()
        if waiting_in is not None:
            # The pool before the claim, in the order of ``match_waiters``.
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
            _recount(Assignment.objects.values_list("pool_id", flat=True).get(pk=assignment_id))
            wake()
            return True
        moved = rows.transition(
            PENDING,
            AssignmentState.RELEASING,
            secrets=None,
            outcome=code,
            outcome_detail=detail,
            step=ReleaseStep.STOPPING,
            owner=None,
        )
        if moved:
            container = rows.values_list("container_ref", flat=True).get()
            assert container
            lifecycle.retire(container)
            enqueue("save", "tenants.tasks.finish_release", assignment_id)
            wake()
    return bool(moved)


def settle(begun: Begun, until: float) -> Assignment | None:
    """The assigned claim; None while it is pending and ``until`` is ahead. Raises its error otherwise."""
    if begun.assigned is not None:
        return begun.assigned
    assignment = Assignment.objects.select_related("container").filter(pk=begun.assignment_id).first()
    if assignment is None:
        raise errors.Draining  # its pool was deleted
    if assignment.state == PENDING:
        if time.time() < until:
            return None
        if not begun.is_new and assignment.deadline > timezone.now():
            raise errors.OutcomeUnknown  # whoever else waits has longer; a new claim joins again
        code, detail = _timeout_outcome(assignment)
        give_up(assignment.pk, code, detail)
        assignment.refresh_from_db()
    if assignment.was_assigned and assignment.state == AssignmentState.ASSIGNED:
        return assignment
    raise errors.OUTCOMES.get(assignment.outcome, errors.ClaimAborted)(assignment.outcome_detail or None)


def _timeout_outcome(assignment: Assignment) -> tuple[str, str]:
    pool = assignment.pool
    if pool.trouble == Trouble.ENGINE_DOWN:
        return errors.EngineUnavailable.code, pool.last_error
    if assignment.container_ref is not None:
        return errors.ClaimTimeout.code, ""
    if pool.cannot_start:
        return errors.PoolError.code, f"The pool cannot start containers: {pool.last_error}"
    return errors.PoolExhausted.code, ""
