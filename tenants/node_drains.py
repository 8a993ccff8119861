"""Empties nodes that are drained: idle containers are replaced elsewhere, tenants are released with a save.

Each look does a part. What is left is read from rows, so any leader carries on.
"""

from __future__ import annotations

from collections import Counter

from django.db.models.functions import Now

from boilerhouse.core import context
from boilerhouse.core.events import emit, recording
from boilerhouse.core.models import Node
from boilerhouse.process.steps import each
from pools.models import Container
from pools.nodes import NodeAccess
from pools.states import ContainerState
from tenants import releases
from tenants.models import Assignment
from tenants.states import AssignmentState, ReleaseReason

SAVES_AT_ONCE = 8
"""Tenants of a node that are released at the same time."""
IDLE_AT_ONCE = 8
"""Idle containers of a pool that are removed at once, while none of the pool's containers is starting."""


def drain(node: Node, *, is_due: bool) -> int:
    """Do the next part. ``is_due``: tenants are released from now on. Returns how much was done."""
    with context.acting_for(node.cordoned_by):
        done = each(_removable(node), _remove) + (each(_releasable(node), _release) if is_due else 0)
    return done or _finish(node)


def _removable(node: Node) -> list[Container]:
    """Idle containers whose pools have warm ones in their place, or start none at the moment."""
    idle = list(Container.objects.idle().filter(node=node).order_by("state_changed_at"))
    pools = {container.pool_id for container in idle}
    starting = Container.objects.filter(pool_id__in=pools, state=ContainerState.STARTING)
    busy = set(starting.values_list("pool_id", flat=True)) if pools else set()
    taken = Counter[str]()
    chosen = []
    for container in idle:
        if container.pool_id not in busy and taken[container.pool_id] < IDLE_AT_ONCE:
            taken[container.pool_id] += 1
            chosen.append(container)
    return chosen


def _remove(container: Container) -> int:
    with recording():
        rows = Container.objects.filter(pk=container.pk)
        moved = rows.transition(ContainerState.IDLE, ContainerState.REMOVING)
        if moved:
            NodeAccess(container.node_id).queue.put("pool", "pools.tasks.destroy_container", container.pk)
    return moved


def _releasable(node: Node) -> list[Assignment]:
    """The next tenants, so that no more than ``SAVES_AT_ONCE`` are being released."""
    there = Assignment.objects.filter(container__node=node)
    room = SAVES_AT_ONCE - there.filter(state=AssignmentState.RELEASING).count()
    rows = there.filter(state=AssignmentState.ASSIGNED).order_by("last_activity_at", "pk")
    return list(rows[: max(0, room)])


def _release(held: Assignment) -> bool:
    return releases.fence(Assignment.objects.filter(pk=held.pk), reason=ReleaseReason.NODE_DRAINED)


def _finish(node: Node) -> int:
    """It has no container any more."""
    if node.drained_at is not None or Container.objects.filter(node=node).exists():
        return 0
    with recording():
        done = Node.objects.filter(pk=node.pk, drained_at=None).exclude(drains_at=None).update(drained_at=Now())
        if done:
            emit("node.drained", node=node.pk, unsaved=unsaved_on(node.pk))
    return done


def unsaved_on(node_id: str) -> int:
    """How many tenants have state there whose save has failed."""
    return Assignment.objects.live().filter(container=None, directory_node=node_id).count()
