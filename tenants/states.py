"""The life cycle of an assignment on one page."""

from __future__ import annotations

from django.db.models import TextChoices


class AssignmentState(TextChoices):
    """How a tenant holds a container."""

    PENDING = "pending"
    """Claimed; waits for a container, or its state is on the way in."""
    ASSIGNED = "assigned"
    """The tenant works in it."""
    RELEASING = "releasing"
    """Fenced; being saved and taken down."""
    RELEASE_FAILED = "release_failed"
    """The save failed: container gone, directory kept, retried by itself."""
    ENDED = "ended"
    """Over; kept as history. The API shows no assignment."""


TRANSITIONS: dict[AssignmentState, frozenset[AssignmentState]] = {
    AssignmentState.PENDING: frozenset({AssignmentState.ASSIGNED, AssignmentState.RELEASING, AssignmentState.ENDED}),
    AssignmentState.ASSIGNED: frozenset({AssignmentState.RELEASING}),
    AssignmentState.RELEASING: frozenset({AssignmentState.RELEASE_FAILED, AssignmentState.ENDED}),
    AssignmentState.RELEASE_FAILED: frozenset({AssignmentState.RELEASING}),
    AssignmentState.ENDED: frozenset(),
}
LIVE = frozenset(AssignmentState) - {AssignmentState.ENDED}


class ReleaseStep(TextChoices):
    """Where a release is. Each is committed before its act and is safe to run again (hazards.md#b2)."""

    STOPPING = "stopping"
    SAVING = "saving"
    SAVED = "saved"
    """Marker written and runs succeeded."""
    DESTROYING = "destroying"
    """From here on nothing is saved any more."""
    WIPING = "wiping"


class ReleaseReason(TextChoices):
    """What a release was for."""

    REQUESTED = "requested"
    IDLE = "idle"
    """No activity for the pool's idleTimeoutMs."""
    CONTAINER_DIED = "container_died"
    UNHEALTHY = "unhealthy"
    """It ran, unhealthy, in a pool that releases such containers."""
    POOL_DELETED = "pool_deleted"
    DISK = "disk"
    """It held more on disk than its limit, or grew the most while the node's disk ran out."""


class Source(TextChoices):
    """How a claim was served."""

    WARM = "warm"
    COLD = "cold"
    """It had to wait for a container."""
    EXISTING = "existing"
    """The tenant held it already."""
