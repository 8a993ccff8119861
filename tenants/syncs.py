"""Syncs of running containers: on demand and every ``intervalMs``, with the same restore and save as claims and
releases.

Runs are rows; a message only says that runs are queued. The worker that gets it executes one run of the tenant that has
waited longest, under the container's lock. So a tenant has one run at a time, however many are queued, and the others
wait for at most one of them (ADR 47). A lost message costs a few seconds.
"""

from __future__ import annotations

import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from uuid import UUID

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import F, OuterRef, QuerySet, Subquery, TextField
from django.db.models.functions import Cast, Coalesce

from boilerhouse.core import audit, clock, context
from boilerhouse.core.cooldown import Cooldown
from boilerhouse.core.errors import BoilerhouseError, FieldError, Invalid
from boilerhouse.core.events import emit, recording
from boilerhouse.process import budgets, processes
from boilerhouse.process.steps import each, later
from boilerhouse.queues import slow_work
from pools import errors as pool_errors
from pools.nodes import NodeAccess, here, node_of
from syncing import errors as sync_errors
from syncing import places, restores, saves, sink_checks, targets
from syncing import services as syncing
from syncing.models import SavedState, SyncRun, SyncSpec
from syncing.querysets import SyncRunQuerySet
from syncing.runs import fail_queued, queue_run
from syncing.states import Direction, SyncRunState, Trigger
from tenants import errors, hooks, validation
from tenants.models import Assignment
from tenants.states import AssignmentState
from tenants.transfer_target import target_of

log = structlog.get_logger(__name__)

DIRECTIONS = {
    "outward": (Direction.UPLOAD,),
    "inward": (Direction.DOWNLOAD,),
    "both": (Direction.UPLOAD, Direction.DOWNLOAD),
}
LIVE = (Trigger.MANUAL, Trigger.INTERVAL)
"""Triggers of runs on a running container; the others belong to a claim or a release."""
JITTER = 0.1
"""Each tenant's interval is shorter by up to this fraction, so that simultaneous claims do not stay in step."""
LOST_AFTER = timedelta(seconds=10)
LOCK_TAKEN_S = 0.5
"""If a run's container is locked by other work, such as the end of its claim, the run is retried after this time."""
RESTS, REST_MOST_S = 2.0, 5.0
"""After a manual run, a tenant's next request waits for this multiple of its duration, at most this many seconds."""
PERIODIC_SAVES_AT_ONCE = 2
"""Maximum of unfinished periodic saves per tenant; they run one after another anyway."""


def begin(tenant_id: str, direction: str) -> list[SyncRun]:
    """Queue a run per spec and direction, or join the queued one; if all are joined, nothing is written.

    Raises NotAssigned, ManualSyncOff, Invalid if no mapping matches, BudgetExceeded if the tenant has too many queued.
    """
    validation.check_tenant_id(tenant_id)
    assignment = _assigned().filter(tenant_id=tenant_id).first()
    if assignment is None or assignment.version is None or assignment.uid is None:
        raise errors.NotAssigned
    specs = syncing.specs_of(assignment.pool_id)
    pairs = [(spec, heading) for heading in DIRECTIONS[direction] for spec in specs if syncing.goes(spec, heading)]
    if not pairs:
        raise Invalid(FieldError("/direction", "No mapping of this pool has this direction.", "no_mapping"))
    if not all(spec.allow_manual_trigger for spec, _ in pairs):
        raise sync_errors.ManualSyncOff
    queued = _queued_by_hand(assignment)  # without a lock: a run that only starts now reads the caller's changes
    if all((spec.pk, way) in queued for spec, way in pairs):
        return [queued[spec.pk, way] for spec, way in pairs]
    with recording():
        runs = _join(assignment, pairs, is_bounded=True)
        audit.record("tenant.sync", tenant_id, after={"direction": direction, "runs": [str(run.pk) for run in runs]})
    return runs


def trigger(spec: SyncSpec, direction: str, tenant_id: str | None) -> list[SyncRun]:
    """Queue runs of one spec for a tenant, or for all tenants assigned a container of its pool; or join queued ones.

    Raises ManualSyncOff, NotAssigned if the named tenant has no container there, Invalid if no mapping matches.
    """
    if not spec.allow_manual_trigger:
        raise sync_errors.ManualSyncOff
    ways = [item for item in DIRECTIONS[direction] if syncing.goes(spec, item)]
    if not ways:
        raise Invalid(FieldError("/direction", "No mapping of this spec has this direction.", "no_mapping"))
    assignments = _assigned().filter(pool_id=spec.pool_id)
    if tenant_id is not None:
        assignments = assignments.filter(tenant_id=validation.check_tenant_id(tenant_id, "/tenantId"))
        if not assignments.exists():
            raise errors.NotAssigned
    with recording():
        runs = [run for item in assignments for run in _join(item, [(spec, way) for way in ways])]
        payload = {"direction": direction, "tenantId": tenant_id, "runs": len(runs)}
        audit.record("sync_spec.trigger", spec.pk, after=payload)
    return runs


def _assigned() -> QuerySet[Assignment]:
    rows = Assignment.objects.filter(state=AssignmentState.ASSIGNED, version__isnull=False, uid__isnull=False)
    return rows.select_related("version", "container").order_by("created_at")


def _join(
    assignment: Assignment, pairs: list[tuple[SyncSpec, Direction]], *, is_bounded: bool = False
) -> list[SyncRun]:
    """The queued manual runs, and new ones for the rest.

    A running one is not joined, because it may have read the files before the caller's last change. Raises
    BudgetExceeded if the tenant's own requests have queued too many.
    """
    with recording():
        Assignment.objects.select_for_update().filter(pk=assignment.pk).values_list("pk").first()  # one at a time
        queued = _queued_by_hand(assignment)
        lacking = [item for item in pairs if (item[0].pk, item[1]) not in queued]
        if is_bounded and lacking and len(queued) >= settings.BOILERHOUSE_MAX_QUEUED_SYNCS_PER_TENANT:
            raise budgets.exceeded("syncs", budgets.tenant(assignment.tenant_id), f"{len(queued)} queued syncs")
        new = _queue(assignment, lacking, Trigger.MANUAL)
        queued |= {(run.spec_id, Direction(run.direction)): run for run in new}
        return [queued[spec.pk, way] for spec, way in pairs]


def _queued_by_hand(assignment: Assignment) -> dict[tuple[str, Direction], SyncRun]:
    rows = _queued().filter(tenant_id=assignment.tenant_id, generation=assignment.generation, trigger=Trigger.MANUAL)
    return {(run.spec_id, Direction(run.direction)): run for run in rows}


def _queue(assignment: Assignment, pairs: list[tuple[SyncSpec, Direction]], trigger: Trigger) -> list[SyncRun]:
    with recording():
        target = target_of(assignment, -1, is_stopped=False)
        runs = [queue_run(spec, target, way, trigger) for spec, way in pairs]
        for _ in runs:
            target.node.queue.put("sync", "tenants.tasks.run_syncs")
    return runs


def _queued() -> SyncRunQuerySet:
    return SyncRun.objects.queued().filter(trigger__in=LIVE)


def cancel(run_id: UUID) -> SyncRun:
    """End a queued run immediately; have a running one stopped within a second or two.

    Raises RunNotFound; NotCancellable for runs of claims and releases, which end with these.
    """
    run = SyncRun.objects.filter(pk=run_id).first()
    if run is None:
        raise errors.RunNotFound(f"No sync run {run_id}.")
    if run.trigger not in LIVE:
        detail = f"The run belongs to a {run.trigger} and ends with it. Release the tenant, or release it with discard."
        raise errors.NotCancellable(detail)
    now = clock.now()
    with recording():
        rows = SyncRun.objects.filter(pk=run_id)
        ended = rows.transition(
            SyncRunState.QUEUED,
            SyncRunState.CANCELLED,
            cancel_requested_at=now,
            cancelled_by=context.actor(),
            error_code="cancelled",
            error_detail="The run was cancelled before it began.",
        )
        if not ended and not rows.running().update(cancel_requested_at=now, cancelled_by=context.actor()):
            raise errors.NotCancellable(f"The run has already ended: {run.state}.")
        audit.record("sync_run.cancel", run_id, before={"state": run.state})
    run.refresh_from_db()
    return run


def run_next() -> None:
    """Execute one queued run of the next tenant, then yield: a message is sent for the rest.

    Tenants with a run in progress are skipped, and so are those that wait after a manual run, or whose container is
    locked or on another node. Runs of ended generations are cancelled.
    """
    is_locked = False
    turns, rest_s = _turns()
    for assignment in turns:
        if not node_of(assignment).is_here:
            continue  # that node was sent its own message
        match _take_turn(assignment):
            case Turn.DONE:
                if _queued().exists():
                    _send(here())
                return
            case Turn.LOCKED:
                is_locked = True
            case Turn.NO_ROOM:
                pass  # the holder of the slot sends a message when its run has ended
    if is_locked or rest_s:
        _send(here(), LOCK_TAKEN_S if is_locked else rest_s)


def _send(node: NodeAccess, after_s: float = 0.0) -> None:
    with transaction.atomic():
        node.queue.put("sync", "tenants.tasks.run_syncs", after_s=after_s)


class Turn(Enum):
    """The outcome of a tenant's turn."""

    DONE = "done"
    LOCKED = "locked"
    NO_ROOM = "no room"


def _turns() -> tuple[list[Assignment], float]:
    """Tenants with queued runs and none in progress, longest waiting first; and the seconds until a waiting one may
    run, or 0."""
    living = processes.living()
    running = SyncRun.objects.running().filter(trigger__in=LIVE, owner__in=living)
    busy = set(running.values_list("tenant_id", "generation"))
    queued: dict[tuple[str, int], list[SyncRun]] = defaultdict(list)
    for run in _queued().only("tenant_id", "generation", "trigger", "created_at"):
        queued[run.tenant_id, run.generation].append(run)
    assigned = _assigned().filter(tenant_id__in={tenant_id for tenant_id, _ in queued})
    by_claim = {(assignment.tenant_id, assignment.generation): assignment for assignment in assigned}
    for tenant_id, generation in queued.keys() - by_claim.keys():
        _cancel_left_behind(_queued().filter(tenant_id=tenant_id, generation=generation))
    waiting = queued.keys() & by_claim.keys() - busy
    rests = _rests({key: queued[key] for key in waiting})
    ready = [by_claim[key] for key in waiting - rests.keys()]
    ready.sort(key=lambda assignment: assignment.last_turn_at or assignment.assigned_at or assignment.created_at)
    return ready, min(rests.values(), default=0.0)


def _rests(queued: Mapping[tuple[str, int], list[SyncRun]]) -> dict[tuple[str, int], float]:
    """Those of these claims that must wait after a manual run, and for how many more seconds.

    A tenant that requests syncs continuously would otherwise keep a processor busy (P14, ADR 54). Periodic saves never
    wait, nor do further runs of the request whose run was the last.
    """
    now, remaining_s = clock.now(), dict[tuple[str, int], float]()
    manual = {
        key: min(run.created_at for run in runs)
        for key, runs in queued.items()
        if all(run.trigger == Trigger.MANUAL for run in runs)
    }
    ended = SyncRun.objects.filter(
        tenant_id__in={tenant_id for tenant_id, _ in manual}, trigger=Trigger.MANUAL, started_at__isnull=False,
        finished_at__gt=now - timedelta(seconds=REST_MOST_S),
    )  # fmt: skip
    for run in ended:
        key = run.tenant_id, run.generation
        assert run.started_at
        assert run.finished_at
        if key in manual and manual[key] > run.started_at:
            rest = min(RESTS * (run.finished_at - run.started_at).total_seconds(), REST_MOST_S)
            remaining_s[key] = max(remaining_s.get(key, 0.0), rest - (now - run.finished_at).total_seconds())
    return {key: seconds for key, seconds in remaining_s.items() if seconds > 0}


def _take_turn(assignment: Assignment) -> Turn:
    rows = Assignment.objects.filter(pk=assignment.pk, generation=assignment.generation)
    queued = _queued().filter(tenant_id=assignment.tenant_id, generation=assignment.generation)

    def is_held() -> bool:
        return rows.filter(state=AssignmentState.ASSIGNED).exists()

    try:
        with slow_work.entered(syncing.known_bytes(assignment.tenant_id)) as may_begin, ExitStack() as slots:
            if not may_begin:
                return Turn.NO_ROOM
            try:
                lock = slots.enter_context(node_of(assignment).volumes.locked(assignment.held_container))
            except pool_errors.Locked:
                return Turn.LOCKED
            waiting = list(queued.select_related("spec__credential").order_by("created_at", "id"))
            run = _first_with_room(waiting, slots)
            if waiting and run is None:
                return Turn.NO_ROOM
            rows.update(last_turn_at=clock.now())
            if run is not None and is_held():
                _run_and_log(run, assignment, target_of(assignment, lock, is_stopped=False), is_held)
    except pool_errors.DirectoryGone as error:
        if is_held():
            for run in queued.select_related("spec"):
                fail_queued(run, sync_errors.DirectoryMissing(error.detail))
    if not is_held():
        _cancel_left_behind(queued)
    return Turn.DONE


def _first_with_room(waiting: list[SyncRun], slots: ExitStack) -> SyncRun | None:
    """The first one whose sink has a free worker slot, which is held from now on."""
    is_free: dict[str, bool] = {}
    for run in waiting:
        far_end = places.far_end(run.spec)
        if far_end not in is_free:
            is_free[far_end] = slots.enter_context(slow_work.entered_for([far_end]))
        if is_free[far_end]:
            return run
    return None


def _run_and_log(
    run: SyncRun, assignment: Assignment, target: targets.TransferTarget, is_held: Callable[[], bool]
) -> None:
    try:
        _run(run, assignment, target, is_held)
    except pool_errors.DirectoryGone:
        raise
    except BoilerhouseError as error:
        about = {"tenant": assignment.tenant_id, "run": str(run.pk), "trigger": run.trigger}
        log.warning("sync failed", **about, code=error.code)


def _run(run: SyncRun, assignment: Assignment, target: targets.TransferTarget, is_held: Callable[[], bool]) -> None:
    def keep_going() -> bool:
        return is_held() and not SyncRun.objects.filter(pk=run.pk, cancel_requested_at__isnull=False).exists()

    trigger = Trigger(run.trigger)
    if run.direction == Direction.UPLOAD:
        hooks.run_before_save(assignment, "preSave", target.spec.pre_save)
        saves.save(target, [run.spec], trigger, keep_going, lambda _spec: run)
        return
    try:
        sink_states = sink_checks.check_spec(run.spec, target.tenant_id).answer()
    except sync_errors.SyncFailed as error:
        fail_queued(run, error)
        raise
    restores.restore(target, sink_states, trigger, keep_going, lambda _spec: run)


def _cancel_left_behind(rows: SyncRunQuerySet) -> int:
    return rows.transition(
        SyncRunState.QUEUED,
        SyncRunState.CANCELLED,
        error_code="cancelled",
        error_detail="The tenant was released.",
    )


def cancel_left_behind() -> int:
    """Cancel queued syncs of ended claims; return how many."""
    claims = set(_assigned().values_list("tenant_id", "generation"))
    leftover = [run.pk for run in _queued() if (run.tenant_id, run.generation) not in claims]
    return _cancel_left_behind(SyncRun.objects.filter(pk__in=leftover))


@dataclass(frozen=True, slots=True)
class PeriodicSave:
    """A periodic save of one spec for one assignment."""

    assignment: Assignment
    spec: SyncSpec
    due_at: datetime
    unsaved_since: datetime
    """The time of the last complete save of this generation, or of the claim."""

    def is_overdue(self, now: datetime) -> bool:
        """Whether the last complete save is older than twice the interval (P13)."""
        return later(self.unsaved_since, 2 * (self.spec.interval_ms or 0)) < now


def periodic_saves(tenant_id: str | None = None) -> Iterator[PeriodicSave]:
    """Every upcoming periodic save of assigned tenants, or of one, computed from rows, so a restart loses none.

    The next save counts from the start of the last run, so an outage causes one save, not many. Each pair reads its
    last two runs by an index, however many there were: pages and the controller ask often.
    """
    periodic = SyncSpec.objects.filter(interval_ms__isnull=False).prefetch_related("mappings").order_by("id")
    specs = {spec.pk: spec for spec in periodic if any(mapping.uploads for mapping in spec.mappings.all())}
    if not specs:
        return
    assigned = _assigned() if tenant_id is None else _assigned().filter(tenant_id=tenant_id)
    pairs = assigned.filter(pool__sync_specs__in=list(specs)).annotate(
        spec_id=F("pool__sync_specs__id"),
        began=Subquery(_saves("created_at").values("created_at")[:1]),
        saved=Subquery(_saves("finished_at").succeeded().values("finished_at")[:1]),
    )
    for assignment in pairs.order_by("created_at", "spec_id"):
        spec = specs[assignment.spec_id]
        since = assignment.assigned_at or assignment.created_at
        key = (assignment.tenant_id, assignment.generation, spec.pk)
        share = zlib.crc32("\0".join(map(str, key)).encode()) / 2**32 * JITTER
        due_at = later(assignment.began or since, (spec.interval_ms or 0) * (1 - share))
        yield PeriodicSave(assignment, spec, due_at, assignment.saved or since)


def _saves(since: str) -> SyncRunQuerySet:
    """The saves of one assignment and one spec, for a query of such pairs; ``since`` is the column that orders them.

    The index of the tenant ends at the claim. The spec is compared as text, because an index of the spec's runs, which
    SQLite would take, passes those of all its tenants. For PostgreSQL the cast is none: with another expression it
    expects no rows, and compiles the query each time.
    """
    claimed_at = Coalesce(OuterRef("assigned_at"), OuterRef("created_at"))
    runs = SyncRun.objects.filter(
        **{"tenant_id": OuterRef("tenant_id"), f"{since}__gte": claimed_at},
        generation=OuterRef("generation"), direction=Direction.UPLOAD,
    )  # fmt: skip
    of_spec = runs.annotate(of_spec=Cast("spec_id", TextField())).filter(of_spec=OuterRef("spec_id"))
    return of_spec.order_by(f"-{since}")


def queue_periodic_saves() -> int:
    """Queue the periodic saves that are due, longest overdue first, but no more than the host can handle soon.

    At most two per tenant, so that one tenant's many specs leave capacity to others.
    """
    now = clock.now()
    due = sorted((beat for beat in periodic_saves() if beat.due_at <= now), key=lambda beat: beat.due_at)
    if not due:
        return 0
    unfinished = SyncRun.objects.unfinished()
    busy = set(unfinished.values_list("tenant_id", "spec_id"))
    unfinished_beats = Counter(unfinished.filter(trigger=Trigger.INTERVAL).values_list("tenant_id", flat=True))
    room = 2 * settings.BOILERHOUSE_PARALLEL_TRANSFERS - unfinished_beats.total()
    ready = []
    for beat in due:
        tenant_id = beat.assignment.tenant_id
        if (tenant_id, beat.spec.pk) not in busy and unfinished_beats[tenant_id] < PERIODIC_SAVES_AT_ONCE:
            unfinished_beats[tenant_id] += 1
            ready.append(beat)

    def queue(beat: PeriodicSave) -> int:
        return len(_queue(beat.assignment, [(beat.spec, Direction.UPLOAD)], Trigger.INTERVAL))

    return each(ready[: max(0, room)], queue)


_resent = Cooldown(30)


def resume() -> int:
    """Send the message of long waiting runs again; cancel those of released tenants."""
    old = clock.now() - LOST_AFTER
    waiting = list(_queued().filter(created_at__lt=old))
    if not waiting:
        return 0
    by_claim = {(row.tenant_id, row.generation): row for row in _assigned()}
    left_behind, again = [], {}
    for run in waiting:
        assignment = by_claim.get((run.tenant_id, run.generation))
        if assignment is None:
            left_behind.append(run.pk)
        elif _resent.is_new((assignment.pk, run.pk)):
            again[assignment.pk] = assignment
    _cancel_left_behind(SyncRun.objects.filter(pk__in=left_behind))
    for assignment in again.values():
        _send(node_of(assignment))
    return len(again) + len(left_behind)


_warned = Cooldown(600)


def warn_of_unsaved() -> int:
    """Warn, every ten minutes, of tenants whose last complete save is older than twice the interval (P13)."""
    now = clock.now()

    def warn(beat: PeriodicSave) -> int:
        age = now - beat.unsaved_since
        if not beat.is_overdue(now) or not _warned.is_new((beat.assignment.pk, beat.spec.pk)):
            return 0
        detail = f"No complete save by sync spec {beat.spec.pk} for {round(age.total_seconds())} s; its interval is"
        with recording():
            emit(
                "pool.warning", pool_id=beat.assignment.pool_id, tenant_id=beat.assignment.tenant_id,
                container_id=beat.assignment.container_ref, specId=beat.spec.pk, code="save_overdue",
                detail=f"{detail} {(beat.spec.interval_ms or 0) // 1000} s.",
                ageMs=round(age.total_seconds() * 1000),
            )  # fmt: skip
        return 1

    return each(periodic_saves(), warn)


def oldest_saves(spec: SyncSpec) -> dict[str, datetime | None]:
    """For each assigned tenant of the spec's pool, the last save of its least recently saved mapping of the spec."""
    uploads = [mapping.pk for mapping in spec.mappings.all() if mapping.uploads]
    tenants = list(_assigned().filter(pool_id=spec.pool_id).values_list("tenant_id", flat=True))
    saved: dict[str, list[datetime]] = defaultdict(list)
    rows = SavedState.objects.current().filter(tenant_id__in=tenants, mapping_id__in=uploads)
    for tenant_id, at in rows.values_list("tenant_id", "saved_at"):
        saved[tenant_id].append(at)
    return {
        tenant: min(saved[tenant]) if len(saved[tenant]) == len(uploads) and uploads else None for tenant in tenants
    }
