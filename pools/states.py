"""The life cycle of a container on one page."""

from __future__ import annotations

from django.db.models import TextChoices


class ContainerState(TextChoices):
    """Where a container is in its life. A row that is gone has no state: it is deleted."""

    STARTING = "starting"
    """Its row exists; the engine is creating, starting or probing it."""
    IDLE = "idle"
    """Warm, held by nobody."""
    CLAIMED = "claimed"
    """Held by one tenant, the only one of its life."""
    REMOVING = "removing"
    """On its way out; counts until the engine has none of it and its directories are gone."""
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
    """What the last probe said."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"
    """Not probed yet, or the workload has no health check."""


class Fault(TextChoices):
    """What is wrong with a container that was well once."""

    EXIT = "exit"
    """Its main process ended."""
    OOM = "oom"
    """The kernel ended it: it wanted more memory than its limit."""
    VANISHED = "vanished"
    """The engine no longer has it."""
    UNHEALTHY = "unhealthy"
    """It runs, but its health check fails."""
    DISK = "disk"
    """It runs, but holds more on disk than its limit."""


DEADLY = frozenset({Fault.EXIT, Fault.OOM, Fault.VANISHED})
"""Faults of a container that runs no more."""


class Trouble(TextChoices):
    """Why a pool cannot start containers, or does not roll a version out."""

    START_FAILED = "start_failed"
    """Containers of it do not become healthy."""
    ENGINE_DOWN = "engine_down"
    """The container engine does not answer."""
    HOST_NOT_READY = "host_not_ready"
    """This host cannot isolate containers: rules, addresses, uids or RAM file system are missing."""
    DISK_LOW = "disk_low"
    """The host's disk is nearly full."""
    UNSTABLE = "unstable"
    """Containers of it become warm and then fail."""
    ROLL_HALTED = "roll_halted"
    """The newest version does not become healthy; the last good one keeps serving."""


class PullState(TextChoices):
    """How far the pull of an image is."""

    WAITING = "waiting"
    """It is asked for; others have their turn."""
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


PULL_TRANSITIONS: dict[PullState, frozenset[PullState]] = {
    PullState.WAITING: frozenset({PullState.RUNNING}),
    PullState.RUNNING: frozenset({PullState.RUNNING, PullState.DONE, PullState.FAILED}),  # another process goes on
    PullState.DONE: frozenset({PullState.WAITING}),
    PullState.FAILED: frozenset({PullState.WAITING}),
}
PULLING = frozenset({PullState.WAITING, PullState.RUNNING})
"""States of a pull that containers wait for."""


class PoolState(TextChoices):
    """What a pool is doing; derived, by first match in this order."""

    DRAINING = "draining"
    PAUSED = "paused"
    ERROR = "error"
    """Cannot start containers and has none idle."""
    EXHAUSTED = "exhausted"
    """None idle and as large as it may be."""
    DEGRADED = "degraded"
    """Serves, but below its desired size or with unhealthy containers."""
    HEALTHY = "healthy"
