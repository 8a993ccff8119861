"""The wait queue: claims that wait for a container are assignments without one, served in order (hazards.md#d8).

Every change of the queue locks the pool first and is decided from rows, so any process can do it at any time and no
wake-up can be lost.
"""

from __future__ import annotations

from collections.abc import Hashable

import structlog

from boilerhouse.core import clock
from boilerhouse.core.events import recording
from boilerhouse.queues.tasks import enqueue
from pools import lifecycle
from pools.models import Container, Pool
from pools.nodes import node_of
from tenants import deadlines, errors
from tenants.models import Assignment
from tenants.states import AssignmentState

log = structlog.get_logger(__name__)

PENDING = AssignmentState.PENDING


def match_waiters(pool_id: str) -> int:
    """Assign idle containers to waiting claims, in order. Returns how many.

    Any process may call it at any time: it is decided from rows under the pool's lock, so no wake-up can be lost
    (hazards.md#d8).
    """
    served = 0
    with recording():
        pool = Pool.objects.select_for_update(no_key=True).filter(pk=pool_id).first()
        if pool is None:
            return 0
        # Aborting a claim locks the pool first, too, so none of these rows can end while a container is bound to it.
        for assignment in Assignment.objects.waiting(pool_id).filter(deadline__gt=clock.now()):
            container = take_free(pool)
            if container is None:
                break
            bind(assignment, container)
            bound = Assignment.objects.filter(pk=assignment.pk, state=PENDING, container_ref=None).update(
                container=container, container_ref=container.pk, version_id=container.version_id, uid=container.uid
            )
            assert bound, "a waiting claim changed under the pool's lock"
            deadlines.stand_in_line(Assignment.objects.filter(pk=assignment.pk))
            node_of(container).queue.put("claim", "tenants.tasks.prepare", assignment.pk, assignment.generation)
            served += 1
        recount(pool_id)
        if served:
            enqueue("pool", "pools.tasks.refill", pool_id)
    return served


def recount(pool_id: str) -> None:
    """Record on the pool how many claims are waiting."""
    # Lock before counting, so that a later count sees what an earlier one committed.
    Pool.objects.select_for_update(no_key=True).filter(pk=pool_id).first()
    count = Assignment.objects.waiting(pool_id).count()
    Pool.objects.filter(pk=pool_id).exclude(waiting=count).update(waiting=count)


def settled(keys: set[Hashable]) -> set[Hashable]:
    """Which of these assignments are no longer pending; also assigns idle containers to waiting claims."""
    rows = list(
        Assignment.objects.filter(pk__in=list(map(str, keys))).values_list("pk", "state", "container_ref", "pool_id")
    )
    for pool_id in {pool for _, state, container, pool in rows if state == PENDING and container is None}:
        if Container.objects.idle().filter(pool_id=pool_id).exists():
            match_waiters(pool_id)
    return {pk for pk, state, _, _ in rows if state != PENDING} | (keys - {pk for pk, *_ in rows})


def check_can_wait(pool: Pool) -> None:
    """Raise PoolError or PoolPaused if waiting cannot succeed."""
    starting = pool.containers.filter(state="starting").exists()
    if pool.cannot_start and not starting:
        raise errors.PoolError(f"The pool cannot start containers: {pool.last_error}")
    if pool.is_paused and not starting:
        raise errors.PoolPaused


def take_free(pool: Pool) -> Container | None:
    """An idle container that no live assignment names, whatever its row's state is."""
    while (container := lifecycle.take(pool)) is not None:
        if not Assignment.objects.live().filter(container_ref=container.pk).exists():
            return container
        log.error("idle container held a tenant's data; the tenant's claim gets it back", container=str(container.pk))
    return None


def bind(assignment: Assignment, container: Container) -> None:
    """Record the container on the (unsaved) assignment."""
    assignment.container = container
    assignment.container_ref = container.pk
    assignment.version = container.version
    assignment.uid = container.uid
