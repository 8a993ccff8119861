"""The label and style of every status, the same on all pages."""

from __future__ import annotations

from dataclasses import dataclass

from django.utils import timezone

from boilerhouse.notifications.models import Target
from boilerhouse.notifications.states import DeliveryState
from pools.models import Container, PoolStatus
from pools.states import ContainerHealth, ContainerState, PoolState
from syncing.models import SyncRun, SyncSpec
from syncing.states import Direction, PlaceState, SyncRunState, Trigger
from tenants.states import AssignmentState


@dataclass(frozen=True, slots=True)
class Badge:
    """A status as shown: one of six styles, each with its own shape, and a label."""

    tone: str
    word: str


POOL = {
    PoolState.HEALTHY: Badge("ok", "Healthy"),
    PoolState.DEGRADED: Badge("warn", "Degraded"),
    PoolState.EXHAUSTED: Badge("warn", "Exhausted"),
    PoolState.ERROR: Badge("error", "Cannot start"),
    PoolState.PAUSED: Badge("idle", "Paused"),
    PoolState.DRAINING: Badge("busy", "Draining"),
}
CONTAINER = {
    ContainerState.STARTING: Badge("busy", "Starting"),
    ContainerState.IDLE: Badge("idle", "Idle"),
    ContainerState.CLAIMED: Badge("ok", "Claimed"),
    ContainerState.REMOVING: Badge("busy", "Removing"),
    ContainerState.FAILED: Badge("error", "Failed"),
}
ASSIGNMENT = {
    AssignmentState.PENDING: Badge("busy", "Claiming"),
    AssignmentState.ASSIGNED: Badge("ok", "Assigned"),
    AssignmentState.RELEASING: Badge("busy", "Releasing"),
    AssignmentState.RELEASE_FAILED: Badge("error", "Not saved"),
    AssignmentState.ENDED: Badge("idle", "Released"),
}
RUN = {
    SyncRunState.QUEUED: Badge("idle", "Queued"),
    SyncRunState.RUNNING: Badge("busy", "Running"),
    SyncRunState.SUCCEEDED: Badge("ok", "Done"),
    SyncRunState.FAILED: Badge("error", "Failed"),
    SyncRunState.CANCELLED: Badge("idle", "Cancelled"),
}


DELIVERY = {
    DeliveryState.PENDING: Badge("busy", "Waiting"),
    DeliveryState.DELIVERED: Badge("ok", "Delivered"),
    DeliveryState.FAILED: Badge("error", "Not delivered"),
    DeliveryState.CANCELLED: Badge("idle", "Cancelled"),
}


def notification(target: Target) -> Badge:
    """The state of a notification's target."""
    if target.disabled_at is not None:
        return Badge("error", "Disabled")
    if not target.is_on:
        return Badge("idle", "Off")
    if target.is_muted(timezone.now()):
        return Badge("idle", "Muted")
    if target.failing_since is not None:
        return Badge("warn", "Failing")
    return Badge("ok", "Active")


def pool(status: PoolStatus) -> Badge:
    is_filling = status.state == PoolState.DEGRADED and not status.last_error and not status.unhealthy
    if status.pulling and (is_filling or (status.state == PoolState.HEALTHY and not status.idle)):
        return Badge("busy", "Pulling")  # because a waiting start counts as one that will soon exist
    if is_filling:
        return Badge("busy", "Filling")
    if status.state == PoolState.DRAINING and not status.size:
        return Badge("idle", "Drained")
    return POOL[status.state]


def health(container: Container) -> Badge:
    if container.fault or container.health == ContainerHealth.UNHEALTHY:
        return Badge("error", container.error or "unhealthy")
    if container.health == ContainerHealth.HEALTHY:
        return Badge("ok", "healthy")
    return Badge("unknown", "not probed")


def run_verb(run: SyncRun) -> str:
    if run.trigger == Trigger.ERASE:
        return "Erase"
    if run.trigger == Trigger.BACKUP:
        return "Backup restore"
    return "Restore" if run.direction == Direction.DOWNLOAD else "Save"


REFUSED = {
    PlaceState.CONFLICT: Badge("error", "Location conflict"),
    PlaceState.CHANGED: Badge("error", "Storage changed"),
}
"""A spec that may transfer nothing, whatever the last probe of its sink reported."""


def sink(spec: SyncSpec) -> Badge:
    if badge := REFUSED.get(PlaceState(spec.place_state)):
        return badge
    match spec.sink_health.get("state"):
        case "healthy":
            return Badge("ok", "Healthy")
        case "unhealthy":
            return Badge("error", str(spec.sink_health.get("code", "unhealthy")).replace("_", " ").capitalize())
    return Badge("unknown", "Not probed yet")


def sink_detail(spec: SyncSpec) -> str:
    """Why nothing is saved to it, as text; empty while saves work."""
    is_refused = PlaceState(spec.place_state) in REFUSED and spec.place_detail
    return str(spec.place_detail if is_refused else spec.sink_health.get("detail", ""))
