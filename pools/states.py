"""The states of containers, pools and pulls."""

from __future__ import annotations

from django.db.models import TextChoices


class ContainerState(TextChoices):
    """The state of a container. A container without a row has no state."""

    STARTING = "starting"
    """Its row exists; the engine is creating, starting or probing it."""
    IDLE = "idle"
    """Warm and unclaimed."""
    CLAIMED = "claimed"
    """Claimed by one tenant, the only one of its lifetime."""
    REMOVING = "removing"
    """Being removed; counted until it is gone from the engine and its directories are deleted."""
    FAILED = "failed"
    """Never became healthy; about to be removed."""


TRANSITIONS: dict[ContainerState, frozenset[ContainerState]] = {
    ContainerState.STARTING: frozenset({ContainerState.IDLE, ContainerState.FAILED, ContainerState.REMOVING}),
    ContainerState.IDLE: frozenset({ContainerState.CLAIMED, ContainerState.REMOVING}),
    ContainerState.CLAIMED: frozenset({ContainerState.REMOVING}),
    ContainerState.FAILED: frozenset({ContainerState.REMOVING}),
    ContainerState.REMOVING: frozenset(),
}


class ContainerHealth(TextChoices):
    """The result of the last probe."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"
    """Not probed yet, or the workload has no health check."""


class Fault(TextChoices):
    """What is wrong with a container that was healthy before."""

    EXIT = "exit"
    """Its main process ended."""
    OOM = "oom"
    """The kernel killed it, because it exceeded its memory limit."""
    VANISHED = "vanished"
    """The engine no longer has it."""
    UNHEALTHY = "unhealthy"
    """It runs, but its health check fails."""
    DISK = "disk"
    """It runs, but exceeds its disk limit."""


DEADLY = frozenset({Fault.EXIT, Fault.OOM, Fault.VANISHED})
"""Faults of a container that no longer runs."""


class Trouble(TextChoices):
    """Why a pool cannot start containers, or has stopped a roll."""

    START_FAILED = "start_failed"
    """Its containers do not become healthy."""
    ENGINE_DOWN = "engine_down"
    """The container engine does not answer."""
    HOST_NOT_READY = "host_not_ready"
    """This host cannot isolate containers: rules, addresses, uids or RAM file system are missing."""
    DISK_LOW = "disk_low"
    """The host's disk is nearly full."""
    NO_NODE = "no_node"
    """No node may or can take another of its containers."""
    UNSTABLE = "unstable"
    """Its containers become warm and then fail."""
    ROLL_HALTED = "roll_halted"
    """The newest version does not become healthy; the last good one keeps serving."""


class PullState(TextChoices):
    """The progress of an image pull."""

    WAITING = "waiting"
    """Requested; other pulls run first."""
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


PULL_TRANSITIONS: dict[PullState, frozenset[PullState]] = {
    PullState.WAITING: frozenset({PullState.RUNNING}),
    PullState.RUNNING: frozenset({PullState.RUNNING, PullState.DONE, PullState.FAILED}),  # another process continues
    PullState.DONE: frozenset({PullState.WAITING}),
    PullState.FAILED: frozenset({PullState.WAITING}),
}
PULLING = frozenset({PullState.WAITING, PullState.RUNNING})
"""States of a pull that containers wait for."""


class PoolState(TextChoices):
    """What a pool is doing; derived, the first match in this order."""

    DRAINING = "draining"
    PAUSED = "paused"
    ERROR = "error"
    """Cannot start containers and has no idle one."""
    EXHAUSTED = "exhausted"
    """Has no idle container and its maximum size."""
    DEGRADED = "degraded"
    """Serves, but has too few or unhealthy containers."""
    HEALTHY = "healthy"
