"""Steps over releases: starts those that are due, retries failed ones, resumes those of dead processes."""

from __future__ import annotations

from django.db.models import Q, QuerySet

from boilerhouse.core import clock, context
from boilerhouse.core.models import Node
from boilerhouse.core.states import NodeState
from boilerhouse.process.steps import each
from pools.models import Pool
from pools.nodes import node_of
from pools.states import DEADLY
from tenants import aborts, errors, idle, releases
from tenants.models import Assignment
from tenants.states import AssignmentState, ReleaseReason
from tenants.upkeep.orphans import ownerless, send_once, tried


def resume_releases() -> int:
    """Resume releases of dead processes."""
    now = clock.now()
    rows = Assignment.objects.filter(state=AssignmentState.RELEASING)
    rows = rows.exclude(next_attempt_at__gt=now)
    return each(ownerless(rows), lambda row: send_once(row, "save", "tenants.tasks.finish_release", row.pk))


def retry_failed_saves() -> int:
    """Retry failed saves after their back-off, except those whose node is lost."""
    rows = Assignment.objects.filter(state=AssignmentState.RELEASE_FAILED, next_attempt_at__lt=clock.now())
    rows = rows.exclude(directory_node__in=Node.objects.filter(state=NodeState.LOST).values("pk"))
    return each(rows, releases.retry)


def release_of_deleted_pools() -> int:
    """Release, with a save, the tenants of pools that are being deleted; waiting claims get an error."""
    pools = list(Pool.objects.filter(Q(is_deleting=True) | Q(is_draining=True, waiting__gt=0)))
    if not pools:
        return 0
    draining = [pool.pk for pool in pools if pool.is_draining and pool.waiting]
    waiting = Assignment.objects.filter(pool_id__in=draining, state=AssignmentState.PENDING, container_ref=None)
    each(waiting.values_list("pk", flat=True), lambda pk: aborts.give_up(pk, errors.Draining.code))
    return sum(_release_all(pool) for pool in pools if pool.is_deleting)


def _release_all(pool: Pool) -> int:
    with context.acting_for(pool.deleted_by):
        assignments = Assignment.objects.filter(pool=pool, state=AssignmentState.ASSIGNED)
        return _release_each(assignments, ReleaseReason.POOL_DELETED)


def _release_each(rows: QuerySet[Assignment], reason: ReleaseReason) -> int:
    """Fence each of these assignments for ``reason``, in separate statements; return how many succeeded."""
    pks = list(rows.values_list("pk", flat=True))
    return each(pks, lambda pk: releases.fence(Assignment.objects.filter(pk=pk), reason=reason))


def release_dead() -> int:
    """End, with a save from their directories, assignments whose container no longer runs."""
    rows = Assignment.objects.filter(state=AssignmentState.ASSIGNED, container__fault__in=DEADLY)
    return _release_each(rows, ReleaseReason.CONTAINER_DIED)


def release_unhealthy() -> int:
    """Release, with a save, running but unhealthy containers, if their pool is configured so."""
    rows = Assignment.objects.filter(
        state=AssignmentState.ASSIGNED, pool__on_unhealthy=Pool.OnUnhealthy.RELEASE, container__fault__gt=""
    )
    return _release_each(rows.exclude(container__fault__in=DEADLY), ReleaseReason.UNHEALTHY)


def find_idle() -> int:
    """Check assignments without activity for their pool's idleTimeoutMs; a task walks their files."""
    rows = Assignment.objects.filter(state=AssignmentState.ASSIGNED, pool__idle_timeout_ms__gt=0)
    return each(rows.select_related("pool", "container"), _have_checked)


def _have_checked(row: Assignment) -> int:
    due = idle.due_at(row)
    if due is None or due >= clock.now() - idle.SLACK:
        return 0
    if not tried.is_new(("idle", row.pk, row.last_activity_at)):
        return 0
    node_of(row).queue.hand_on("sync", "tenants.tasks.check_idle", row.pk, row.generation)
    return 1
