"""States and choices of sync runs."""

from __future__ import annotations

from django.db.models import TextChoices


class SyncRunState(TextChoices):
    """The state of a run."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


TRANSITIONS: dict[SyncRunState, frozenset[SyncRunState]] = {
    SyncRunState.QUEUED: frozenset({SyncRunState.RUNNING, SyncRunState.FAILED, SyncRunState.CANCELLED}),
    SyncRunState.RUNNING: frozenset({SyncRunState.SUCCEEDED, SyncRunState.FAILED, SyncRunState.CANCELLED}),
    SyncRunState.SUCCEEDED: frozenset(),
    SyncRunState.FAILED: frozenset(),
    SyncRunState.CANCELLED: frozenset(),
}
UNFINISHED = (SyncRunState.QUEUED, SyncRunState.RUNNING)


class Direction(TextChoices):
    """The direction of a mapping."""

    UPLOAD = "upload"
    DOWNLOAD = "download"
    BIDIRECTIONAL = "bidirectional"
    """Restored on claim, uploaded otherwise."""


class Mode(TextChoices):
    """What an upload does with files that exist only at the sink."""

    SYNC = "sync"
    """Deletes them, if this generation restored the mapping first."""
    COPY = "copy"
    """Keeps them."""


class Quiesce(TextChoices):
    """How a running container is saved."""

    FREEZE = "freeze"
    """It is frozen briefly, and saved in that state."""
    NONE = "none"
    """It keeps running: each file is complete, but together they are not consistent."""


class Trigger(TextChoices):
    """Why a run was made."""

    CLAIM = "claim"
    RELEASE = "release"
    INTERVAL = "interval"
    MANUAL = "manual"
    BACKUP = "backup"
    """A backup is restored, at the sink."""
    ERASE = "erase"
    """The tenant's state at the sink is erased."""

    @property
    def is_awaited(self) -> bool:
        """Whether a tenant waits for it: a claim ends with it, and a release frees its container after it."""
        return self in (Trigger.CLAIM, Trigger.RELEASE)


class PlaceState(TextChoices):
    """What is known about the place of a spec's sink, and whether the spec may use it."""

    UNASKED = "", "Not asked yet"
    KNOWN = "known"
    UNKNOWN = "unknown"
    """The sink answers, but the place's object can neither be read nor created."""
    CONFLICT = "conflict"
    """Another spec has overlapping locations there."""
    CHANGED = "changed"
    """It was another place when the spec was saved."""
