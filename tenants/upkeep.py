"""Level-triggered steps over assignments: each looks at rows, enqueues or decides, and says what it did."""

from __future__ import annotations

from datetime import timedelta

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from boilerhouse.core import processes
from boilerhouse.core.events import emit, recording
from boilerhouse.core.tasks import enqueue
from pools import services, volumes
from pools.models import Container, Pool
from pools.states import ContainerState
from syncing.models import SyncRun
from syncing.states import SyncRunState
from tenants import claims, errors, releases
from tenants.models import Assignment
from tenants.states import AssignmentState

ORPHANED_AFTER = timedelta(seconds=3)
"""A row without an owner may have its message still on the way."""
QUARANTINE_AFTER = timedelta(seconds=10)


def serve_waiters() -> int:
    """The net under the waiters' own matching: idle containers go to claims that wait."""
    waiting = Assignment.objects.filter(state=AssignmentState.PENDING, container_ref=None)
    served = 0
    for pool_id in set(waiting.values_list("pool_id", flat=True)):
        if Container.objects.idle().filter(pool_id=pool_id).exists():
            served += claims.match_waiters(pool_id)
    return served


def abort_overdue_claims() -> int:
    """Give up pending claims that nobody waits for any more."""
    overdue = timezone.now() - timedelta(seconds=claims.GRACE_S)
    rows = Assignment.objects.filter(state=AssignmentState.PENDING, deadline__lt=overdue)
    return sum(claims.give_up(pk, errors.ClaimTimeout.code) for pk in rows.values_list("pk", flat=True))


def resume_claims() -> int:
    """Hand on claims whose process is dead."""
    rows = Assignment.objects.filter(state=AssignmentState.PENDING, container_ref__isnull=False)
    return sum(_enqueue(row, "claim", "tenants.tasks.prepare", row.pk, row.generation) for row in _ownerless(rows))


def resume_releases() -> int:
    """Carry on releases whose process is dead."""
    now = timezone.now()
    rows = Assignment.objects.filter(state=AssignmentState.RELEASING)
    rows = rows.exclude(next_attempt_at__gt=now)
    return sum(_enqueue(row, "save", "tenants.tasks.finish_release", row.pk) for row in _ownerless(rows))


def _ownerless(rows: QuerySet[Assignment]) -> list[Assignment]:
    living = processes.living()
    old = timezone.now() - ORPHANED_AFTER
    return [row for row in rows.filter(state_changed_at__lt=old) if row.owner not in living]


_tried: dict[object, float] = {}


def _enqueue(row: Assignment, queue: str, function: str, *arguments: object) -> int:
    """Once per orphan and owner: the message that is already on its way is not doubled every second."""
    now = timezone.now().timestamp()
    key = (row.pk, row.owner, row.attempt, row.next_attempt_at)
    if now - _tried.get(key, 0) < 10:
        return 0
    _tried[key] = now
    for stale in [k for k, at in _tried.items() if now - at > 60]:
        del _tried[stale]
    with transaction.atomic():
        enqueue(queue, function, *arguments)
    return 1


def retry_failed_saves() -> int:
    """Try failed saves again when their back-off has passed."""
    rows = Assignment.objects.filter(state=AssignmentState.RELEASE_FAILED, next_attempt_at__lt=timezone.now())
    return sum(releases.retry(row) for row in rows)


def quarantine_lost() -> int:
    """Put away containers that are to be removed, have seen a tenant, and are nobody's: their state may be unsaved."""
    old = timezone.now() - QUARANTINE_AFTER
    held = Assignment.objects.live().exclude(container_ref=None).values("container_ref")
    rows = Container.objects.filter(state=ContainerState.REMOVING, state_changed_at__lt=old).exclude(pk__in=held)
    put_away = 0
    for container in rows:
        if volumes.read_latch(container.pk) is None:
            continue
        services.quarantine(container.pk)
        with recording():
            detail = "A container that had seen a tenant whose assignment is gone was to be removed; it is quarantined."
            emit("pool.warning", pool_id=container.pool_id, container_id=container.pk, detail=detail)
            services.forget(container.pk, keepsDirectory=True)
        put_away += 1
    return put_away


def release_of_deleted_pools() -> int:
    """Release, with save, whoever holds a container of a pool that is being deleted; who waits there is told."""
    deleting = Pool.objects.filter(is_deleting=True).values_list("pk", flat=True)
    released = 0
    draining = Pool.objects.filter(is_draining=True, waiting__gt=0).values_list("pk", flat=True)
    for row in Assignment.objects.filter(pool_id__in=list(draining), state=AssignmentState.PENDING, container_ref=None):
        claims.give_up(row.pk, errors.Draining.code)
    for row in Assignment.objects.filter(pool_id__in=list(deleting), state=AssignmentState.ASSIGNED):
        released += releases.fence(Assignment.objects.filter(pk=row.pk), save_all=None, discard=False)
    return released


def retry_when_sink_recovers(spec_pool_id: str) -> int:
    """A sink is healthy again: failed saves of its pool are tried at once."""
    rows = Assignment.objects.filter(state=AssignmentState.RELEASE_FAILED, pool_id=spec_pool_id)
    return sum(releases.retry(row) for row in rows)


def bury_dead_runs() -> int:
    """Say of runs whose process is dead that they were interrupted; what they belong to decides anew."""
    living = processes.living()
    rows = SyncRun.objects.filter(state=SyncRunState.RUNNING)
    dead = [run.pk for run in rows if run.owner not in living]
    return SyncRun.objects.filter(pk__in=dead, state=SyncRunState.RUNNING).update(
        state=SyncRunState.FAILED, finished_at=timezone.now(), error_code="interrupted",
        error_detail="The process that ran it died.",
    )  # fmt: skip
