"""The states of an assignment."""

from __future__ import annotations

from django.db.models import TextChoices


class AssignmentState(TextChoices):
    """How a tenant holds a container."""

    PENDING = "pending"
    """Claimed; waits for a container, or its state is being restored."""
    ASSIGNED = "assigned"
    """The tenant uses the container."""
    RELEASING = "releasing"
    """Fenced; being saved and removed."""
    RELEASE_FAILED = "release_failed"
    """The save failed: the container is gone, its directory kept, and the save is retried automatically."""
    ENDED = "ended"
    """Ended; kept as history. The API shows no assignment."""


TRANSITIONS: dict[AssignmentState, frozenset[AssignmentState]] = {
    AssignmentState.PENDING: frozenset({AssignmentState.ASSIGNED, AssignmentState.RELEASING, AssignmentState.ENDED}),
    AssignmentState.ASSIGNED: frozenset({AssignmentState.RELEASING, AssignmentState.ENDED}),
    AssignmentState.RELEASING: frozenset({AssignmentState.RELEASE_FAILED, AssignmentState.ENDED}),
    AssignmentState.RELEASE_FAILED: frozenset({AssignmentState.RELEASING, AssignmentState.ENDED}),
    AssignmentState.ENDED: frozenset(),
}
LIVE = frozenset(AssignmentState) - {AssignmentState.ENDED}


class ReleaseStep(TextChoices):
    """The step of a release. Each is committed before it is executed and can be repeated (hazards.md#b2)."""

    STOPPING = "stopping"
    SAVING = "saving"
    SAVED = "saved"
    """Marker written and runs succeeded."""
    DESTROYING = "destroying"
    """From here on, nothing is saved any more."""
    WIPING = "wiping"


class ReleaseReason(TextChoices):
    """The reason of a release."""

    REQUESTED = "requested"
    IDLE = "idle"
    """No activity for the pool's idleTimeoutMs."""
    CONTAINER_DIED = "container_died"
    UNHEALTHY = "unhealthy"
    """The container was unhealthy, in a pool that releases such containers."""
    POOL_DELETED = "pool_deleted"
    DISK = "disk"
    """Its disk use exceeded its limit, or grew the fastest while the node's disk was low."""
    EXPIRED = "expired"
    """Its time to live has passed."""
    NODE_DRAINED = "node_drained"
    """Its node was drained."""
    NODE_LOST = "node_lost"
    """Its node was declared lost; what was not saved is there."""


class Source(TextChoices):
    """How a claim was served."""

    WARM = "warm"
    COLD = "cold"
    """The claim had to wait for a container."""
    EXISTING = "existing"
    """The tenant had it already."""
