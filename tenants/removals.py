"""Remove one container, claimed or not; a claimed one is released, with the same decision about its save."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from uuid import UUID

from boilerhouse.core import audit, context
from boilerhouse.core.events import recording
from boilerhouse.queues.tasks import enqueue
from pools import errors as pool_errors
from pools.models import Container
from pools.nodes import node_of
from pools.states import ContainerState
from tenants import errors, releases


@dataclass(frozen=True, slots=True)
class Removal:
    """An accepted removal."""

    container_id: UUID
    release: releases.Release | None


def begin(container_id: UUID, *, discard: bool) -> Removal:
    """Start to remove the container, or join a removal in progress. A claimed one is released, with a save unless
    ``discard``.

    Raises ContainerNotFound, and Starting for one that is neither idle nor failed yet.
    """
    container = Container.objects.filter(pk=container_id).first()
    if container is None:
        raise pool_errors.ContainerNotFound(f"No container {container_id}.")
    if container.state == ContainerState.STARTING:
        raise pool_errors.Starting
    if container.state == ContainerState.IDLE:
        with recording():
            rows, asked_by = Container.objects.filter(pk=container_id), {"removed_by": context.actor()}
            if rows.transition(ContainerState.IDLE, ContainerState.REMOVING, **asked_by):
                audit.record("container.remove", container_id, before={"poolId": container.pool_id, "state": "idle"})
                node_of(container).queue.put("pool", "pools.tasks.destroy_container", container_id)
                enqueue("pool", "pools.tasks.refill", container.pool_id)
                return Removal(container_id, None)
        return begin(container_id, discard=discard)  # it was claimed meanwhile
    try:
        release = releases.begin_in(container_id, discard=discard)
    except errors.NothingHeld:
        return Removal(container_id, None)  # it is being removed already
    return Removal(container_id, release)


def settled(keys: set[Hashable]) -> set[Hashable]:
    """Which of these containers are gone."""
    return keys - set(Container.objects.filter(pk__in=list(map(str, keys))).values_list("pk", flat=True))


def settle(removal: Removal) -> bool:
    """True when the container is gone and its state saved or discarded, False while it is not. Raises SaveFailed."""
    if removal.release is not None:
        return releases.settle(removal.release)
    return not Container.objects.filter(pk=removal.container_id).exists()
