"""A cause: one thing that needs an operator, however many objects it affects."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from syncing.sink_words import Remedy


class Kind(StrEnum):
    """What has gone wrong."""

    STATE_NOT_SAVED = "state_not_saved"
    """Tenants are released, and their state is not saved; it is kept on the node."""
    SAVE_OVERDUE = "save_overdue"
    """The last complete save of assigned tenants is older than twice the interval."""
    SINK_DOWN = "sink_down"
    """A sink does not answer or refuses, so nothing can be saved there."""
    POOL_CANNOT_START = "pool_cannot_start"
    POOL_UNSTABLE = "pool_unstable"
    """Containers become warm and then fail."""
    POOL_EXHAUSTED = "pool_exhausted"
    """Claims wait, and the pool has its maximum size."""
    POOL_PAUSED = "pool_paused"
    """Claims wait, and the pool is paused."""
    ROLL_HALTED = "roll_halted"
    """The newest version does not become healthy; the last good one serves."""
    IMAGE_STALE = "image_stale"
    """The newest image cannot be pulled; an older one serves."""
    CONTAINER_UNHEALTHY = "container_unhealthy"
    """Claimed containers are unhealthy."""
    ENGINE_GONE = "engine_gone"
    HOST_NOT_READY = "host_not_ready"
    """The node cannot isolate containers."""
    DISK_LOW = "disk_low"
    NODE_LOST = "node_lost"
    """No worker of a node is alive, so its work waits."""
    CONTROLLER_LOST = "controller_lost"
    QUEUE_UNSERVED = "queue_unserved"
    STEP_FAILING = "step_failing"
    """A step of the controller or of a watcher fails each time."""
    BACKUP_MISSING = "backup_missing"
    """The last backup of the rows is older than the deployment's limit, or there is none."""
    NOTIFICATION_DISABLED = "notification_disabled"
    """A notification target was disabled and gets no messages."""


class Severity(StrEnum):
    ERROR = "error"
    """Users are affected now, or state could be lost."""
    WARNING = "warning"


class Thing(StrEnum):
    """The kind of object that a cause is about."""

    SYNC_SPEC = "sync_spec"
    POOL = "pool"
    TENANT = "tenant"
    CONTAINER = "container"
    NODE = "node"
    PROCESS = "process"
    """A queue, a step or the controller, by name."""
    NOTIFICATION = "notification"
    DEPLOYMENT = "deployment"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One present cause."""

    key: str
    """The same for as long as the cause lasts, whatever changes about it."""
    kind: Kind
    severity: Severity = Severity.ERROR
    what: str
    """What has gone wrong, with ``{}`` for the subject."""
    thing: Thing
    subject: str
    """The id or name of the object."""
    why: str
    """The cause, as sentences with the technical code in brackets."""
    effect: str = ""
    """What it blocks, with counts; empty if nothing."""
    detail: str = ""
    """The message of the sink or of the engine, if ``why`` does not contain it."""
    since: datetime
    pool_ids: tuple[str, ...] = ()
    """The pools that it affects; empty if it affects the deployment."""
    spec_ids: tuple[str, ...] = ()
    """The sync specs that it affects."""
    credential_id: str = ""
    """The stored credential with which the sink was asked, if any."""
    workload_id: str = ""
    """The workload whose spec is the cause, if any."""
    unsaved: tuple[str, ...] = ()
    """Tenants whose state is not saved because of it, and whose save can be retried."""
    overdue: tuple[str, ...] = ()
    """Assigned tenants whose periodic saves are overdue because of it."""
    remedy: Remedy | None = field(default=None)
    """What has to change, for causes of saves."""

    @property
    def title(self) -> str:
        return self.what.format(self.subject)

    @property
    def text(self) -> str:
        return f"{self.why} {self.effect}".strip()

    @property
    def kinds(self) -> frozenset[Kind]:
        """Its kind, and what it causes: a sink that is down also leaves state unsaved."""
        symptoms = {Kind.STATE_NOT_SAVED} if self.unsaved else set()
        symptoms |= {Kind.SAVE_OVERDUE} if self.overdue else set()
        return frozenset({self.kind, *symptoms})

    def affects(self, pool_id: str) -> bool:
        return not self.pool_ids or pool_id in self.pool_ids
