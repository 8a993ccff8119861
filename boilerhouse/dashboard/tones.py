"""The label and style of every status, the same on all pages."""

from __future__ import annotations

from dataclasses import dataclass

from pools.models import Container, PoolStatus
from pools.states import ContainerHealth, ContainerState, PoolState
from syncing.models import SyncRun, SyncSpec
from syncing.states import Direction, PlaceState, SyncRunState, Trigger
from tenants.states import AssignmentState


@dataclass(frozen=True, slots=True)
class Said:
    """A status as shown: one of six styles, each with its own shape, and a label."""

    tone: str
    word: str


POOL = {
    PoolState.HEALTHY: Said("ok", "Healthy"),
    PoolState.DEGRADED: Said("warn", "Degraded"),
    PoolState.EXHAUSTED: Said("warn", "Exhausted"),
    PoolState.ERROR: Said("error", "Cannot start"),
    PoolState.PAUSED: Said("idle", "Paused"),
    PoolState.DRAINING: Said("busy", "Draining"),
}
CONTAINER = {
    ContainerState.STARTING: Said("busy", "Starting"),
    ContainerState.IDLE: Said("idle", "Idle"),
    ContainerState.CLAIMED: Said("ok", "Claimed"),
    ContainerState.REMOVING: Said("busy", "Removing"),
    ContainerState.FAILED: Said("error", "Failed"),
}
ASSIGNMENT = {
    AssignmentState.PENDING: Said("busy", "Claiming"),
    AssignmentState.ASSIGNED: Said("ok", "Assigned"),
    AssignmentState.RELEASING: Said("busy", "Releasing"),
    AssignmentState.RELEASE_FAILED: Said("error", "Not saved"),
    AssignmentState.ENDED: Said("idle", "Released"),
}
RUN = {
    SyncRunState.QUEUED: Said("idle", "Queued"),
    SyncRunState.RUNNING: Said("busy", "Running"),
    SyncRunState.SUCCEEDED: Said("ok", "Done"),
    SyncRunState.FAILED: Said("error", "Failed"),
    SyncRunState.CANCELLED: Said("idle", "Cancelled"),
}


def pool(status: PoolStatus) -> Said:
    is_filling = status.state == PoolState.DEGRADED and not status.last_error and not status.unhealthy
    if status.pulling and (is_filling or (status.state == PoolState.HEALTHY and not status.idle)):
        return Said("busy", "Pulling")  # because a waiting start counts as one that will soon exist
    if is_filling:
        return Said("busy", "Filling")
    return POOL[status.state]


def health(container: Container) -> Said:
    if container.fault or container.health == ContainerHealth.UNHEALTHY:
        return Said("error", container.error or "unhealthy")
    if container.health == ContainerHealth.HEALTHY:
        return Said("ok", "healthy")
    return Said("unknown", "not probed")


def run_verb(run: SyncRun) -> str:
    if run.trigger == Trigger.ERASE:
        return "Erase"
    if run.trigger == Trigger.BACKUP:
        return "Backup restore"
    return "Restore" if run.direction == Direction.DOWNLOAD else "Save"


REFUSED = {
    PlaceState.CONFLICT: Said("error", "Location conflict"),
    PlaceState.CHANGED: Said("error", "Storage changed"),
}
"""A spec that may transfer nothing, whatever the last probe of its sink reported."""


def sink(spec: SyncSpec) -> Said:
    if found := REFUSED.get(PlaceState(spec.place_state)):
        return found
    match spec.sink_health.get("state"):
        case "healthy":
            return Said("ok", "Healthy")
        case "unhealthy":
            return Said("error", str(spec.sink_health.get("code", "unhealthy")).replace("_", " ").capitalize())
    return Said("unknown", "Not probed yet")


def sink_detail(spec: SyncSpec) -> str:
    """Why nothing is saved to it, as text; empty while saves work."""
    is_refused = PlaceState(spec.place_state) in REFUSED and spec.place_detail
    return str(spec.place_detail if is_refused else spec.sink_health.get("detail", ""))
