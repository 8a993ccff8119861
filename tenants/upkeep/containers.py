"""Steps over containers that are unassigned, frozen, or whose directories are still needed."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from boilerhouse.core import clock
from boilerhouse.core.deployment import node_id
from boilerhouse.core.events import emit, recording
from boilerhouse.process.steps import each
from pools import freezer, lifecycle, sizing
from pools.models import Container
from pools.nodes import NodeAccess, here, node_of
from pools.states import ContainerState
from tenants.models import Assignment
from tenants.upkeep.orphans import send, tried

QUARANTINE_AFTER = timedelta(seconds=10)


def thaw_forgotten() -> int:
    """Thaw containers that a killed save has left frozen."""
    return sum(send("pool", "pools.tasks.thaw", pk, node=node_id()) for pk in freezer.left_frozen())


def find_lost() -> int:
    """Quarantine unassigned containers of this node that are to be removed and have held a tenant's data."""
    old = clock.now() - QUARANTINE_AFTER
    rows = Container.objects.here().filter(state=ContainerState.REMOVING, state_changed_at__lt=old)
    return each(rows.values_list("pk", flat=True), _have_put_away)


def _have_put_away(pk: UUID) -> int:
    if not is_lost(here(), pk) or not tried.is_new(("lost", pk)):
        return 0
    here().queue.hand_on("pool", "tenants.tasks.put_away", pk)
    return 1


def is_lost(node: NodeAccess, container_id: UUID) -> bool:
    """Whether it has held data of a tenant whose assignment no longer exists: its state may be unsaved."""
    has_tenant = Assignment.objects.live().filter(container_ref=container_id).exists()
    return not has_tenant and node.volumes.read_latch(container_id) is not None


def put_away(container_id: UUID) -> None:
    """Stop a lost container, free its slot, and keep its directory for a person to inspect."""
    container = Container.objects.filter(pk=container_id, state=ContainerState.REMOVING).first()
    if container is None:
        return
    node = node_of(container)
    if not node.is_here or not is_lost(node, container_id):
        return
    lifecycle.quarantine(node, container_id)
    with recording():
        detail = (
            "A container that has held a tenant's data, but has no assignment, was about to be removed; it is"
            " quarantined."
        )
        emit("pool.warning", pool_id=container.pool_id, container_id=container_id, detail=detail)
        lifecycle.forget(container_id, keepsDirectory=True)
    sizing.refill(container.pool_id)


def retire_unheld() -> int:
    """Remove claimed containers without an assignment: a reset database may have some."""
    claimed = Assignment.objects.live().exclude(container_ref=None).values("container_ref")
    old = clock.now() - QUARANTINE_AFTER
    rows = Container.objects.filter(state=ContainerState.CLAIMED, state_changed_at__lt=old).exclude(pk__in=claimed)
    return each(list(rows), _retire)


def _retire(container: Container) -> int:
    with recording():
        lifecycle.retire(container.pk)
        node_of(container).queue.put("pool", "pools.tasks.destroy_container", container.pk)
    return 1


def held_containers() -> set[UUID]:
    """Containers whose directories live assignments still need."""
    rows = Assignment.objects.live().exclude(container_ref=None)
    return {ref for ref in rows.values_list("container_ref", flat=True) if ref}
