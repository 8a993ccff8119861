"""Errors of claim and release."""

from __future__ import annotations

from boilerhouse.core.errors import (
    BoilerhouseError,
    Conflict,
    Failed,
    Internal,
    NotFound,
    TimedOut,
    TooMany,
    Unavailable,
)


class NothingHeld(NotFound):
    """This tenant holds nothing."""

    code = "nothing_held"


class OtherPool(Conflict):
    """The tenant holds a container of another pool."""

    code = "other_pool"


class Releasing(Conflict):
    """The tenant's last container is being released."""

    code = "releasing"
    retry_after = 1


class ReleaseFailed(Conflict):
    """The last save of this tenant failed and is being retried; a claim would lose it."""

    code = "release_failed"
    retry_after = 5


class TooManyCommands(TooMany):
    """As many commands as are allowed at once run in this container; wait for one to end."""

    code = "too_many_commands"


class RunNotFound(NotFound):
    """There is no such sync run."""

    code = "sync_run_not_found"


class NotCancellable(Conflict):
    """The run belongs to a claim or a release, or has ended."""

    code = "not_cancellable"


class RestoringBackup(Conflict):
    """A backup of this tenant is being restored."""

    code = "restoring_backup"
    retry_after = 1


class Erasing(Conflict):
    """The state of this tenant is being erased."""

    code = "erasing"
    retry_after = 1


class EraseFailed(Failed):
    """Not everything could be erased."""

    code = "erase_failed"


class Unerasable(Conflict):
    """Saved state lies where no sync spec leads any more."""

    code = "out_of_reach"


class NotMissing(Conflict):
    """The tenant's last claim did not end with state_missing or state_moved: there is nothing to forget."""

    code = "not_missing"


class Held(Conflict):
    """The tenant holds a container, or its last save is not done; release it first."""

    code = "held"


class BackupNotFound(NotFound):
    """There is no such backup."""

    code = "backup_not_found"


class Draining(Conflict):
    """The pool is draining and takes no new claims."""

    code = "draining"


class ClaimAborted(Conflict):
    """The tenant was released while its claim was pending."""

    code = "claim_aborted"


class TerminalsOff(Conflict):
    """Terminals are off here; BOILERHOUSE_TERMINAL=true allows them."""

    code = "terminals_off"


class NotAssigned(Conflict):
    """The tenant holds no container."""

    code = "not_assigned"


class RestoreFailed(Failed):
    """The tenant's state could not be restored."""

    code = "restore_failed"


class SinkThrottled(Unavailable):
    """The sink asks for fewer requests; nothing is held, ask again."""

    code = "sink_throttled"
    retry_after = 5


class StateMissing(Failed):
    """The tenant's state was saved but is no longer there."""

    code = "state_missing"


class StateMoved(Failed):
    """The tenant's state was saved at another location."""

    code = "state_moved"


class LocationConflict(Failed):
    """The sync spec's locations meet those of another spec; nothing is restored until one of them is changed."""

    code = "location_conflict"


class PlaceChanged(Failed):
    """The sink leads to another place than when the sync spec was saved; save it again to use the place as it is."""

    code = "place_changed"


class HookFailed(Failed):
    """The workload's postClaim hook failed."""

    code = "hook_failed"

    def __init__(self, detail: str | None = None, output: str = "") -> None:
        super().__init__(detail)
        self.output = output
        """What the hook printed, which may hold the tenant's secrets: for who may read logs."""


class ContainerDied(Failed):
    """The container died while it was prepared."""

    code = "container_died"


class SaveFailed(Failed):
    """The tenant's state could not be saved; nothing of it was deleted, and the save is retried."""

    code = "save_failed"


class PoolExhausted(Unavailable):
    """No container came free in time."""

    code = "pool_exhausted"


class PoolError(Unavailable):
    """The pool cannot start containers."""

    code = "pool_error"
    retry_after = 5


class PoolPaused(Unavailable):
    """The pool is paused and has no idle container."""

    code = "pool_paused"
    retry_after = 10


class EngineUnavailable(Unavailable):
    """The container engine does not answer."""

    code = "engine_unavailable"


class OutcomeUnknown(Unavailable):
    """Whether the claim succeeded is not known; claim again to join it."""

    code = "outcome_unknown"
    retry_after = 1


class ClaimTimeout(TimedOut):
    """The claim was not served within its time; it holds nothing."""

    code = "claim_timeout"


OUTCOMES: dict[str, type[BoilerhouseError]] = {
    error.code: error
    for error in (
        ClaimAborted, RestoreFailed, StateMissing, StateMoved, LocationConflict, PlaceChanged, HookFailed,
        ContainerDied, PoolExhausted, PoolError, PoolPaused, EngineUnavailable, ClaimTimeout, Draining, SinkThrottled,
        Internal,
    )
}  # fmt: skip
"""What a claim that ended without success answers, by the outcome stored in its row."""
