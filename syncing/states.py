"""States and choices of sync runs."""

from __future__ import annotations

from django.db.models import TextChoices


class SyncRunState(TextChoices):
    """How far a run is."""

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
    """Which way a mapping goes."""

    UPLOAD = "upload"
    DOWNLOAD = "download"
    BIDIRECTIONAL = "bidirectional"
    """Restored on claim, uploaded otherwise."""


class Mode(TextChoices):
    """What an upload does with what is only at the far end."""

    SYNC = "sync"
    """Deletes it, where this generation restored the mapping first."""
    COPY = "copy"
    """Leaves it."""


class Quiesce(TextChoices):
    """How a running container is saved."""

    FREEZE = "freeze"
    """It stands still for a moment, and is saved as it was then."""
    NONE = "none"
    """It goes on: each file is whole, all of them together are not of one moment."""


class Trigger(TextChoices):
    """Why a run was made."""

    CLAIM = "claim"
    RELEASE = "release"
    INTERVAL = "interval"
    MANUAL = "manual"
    BACKUP = "backup"
    """A backup is put back, at the sink."""
    ERASE = "erase"
    """What the sink holds of the tenant is erased."""

    @property
    def is_awaited(self) -> bool:
        """Whether a tenant waits for it: a claim ends with it, and a release frees its container after it."""
        return self in (Trigger.CLAIM, Trigger.RELEASE)


class PlaceState(TextChoices):
    """What is known of the place that a spec's sink leads to, and whether the spec may use it."""

    UNASKED = "", "Not asked yet"
    KNOWN = "known"
    UNKNOWN = "unknown"
    """The sink answers, but the place's object can be neither read nor made."""
    CONFLICT = "conflict"
    """Another spec has locations there that this one would meet."""
    CHANGED = "changed"
    """It was another place when the spec was saved."""
