"""Errors of claim and release."""

from __future__ import annotations

import math

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
    """The tenant holds no container and has no unsaved state."""

    code = "nothing_held"


class OtherPool(Conflict):
    """The tenant holds a container of another pool."""

    code = "other_pool"


class Releasing(Conflict):
    """The tenant's previous container is still being released."""

    code = "releasing"
    retry_after = 1


class ReleaseFailed(Conflict):
    """The tenant's last save failed and is being retried. A claim now would lose that state."""

    code = "release_failed"
    retry_after = 5


class NodeLost(Failed):
    """The node of the tenant's container was lost."""

    code = "node_lost"


class TooManyClaims(TooMany):
    """The key has made as many new claims as one key may for now."""

    code = "too_many_claims"

    def __init__(self, after_s: float) -> None:
        self.retry_after = math.ceil(after_s)  # type: ignore[misc]  # a different one each time
        super().__init__(f"The key makes new claims too quickly. Try again in {self.retry_after} s.")


class TooManyCommands(TooMany):
    """The maximum number of commands is already running in this container. Wait for one to end."""

    code = "too_many_commands"


class RunNotFound(NotFound):
    """No such sync run."""

    code = "sync_run_not_found"


class NotCancellable(Conflict):
    """The run belongs to a claim or a release, or has ended."""

    code = "not_cancellable"


class RestoringBackup(Conflict):
    """A backup of the tenant is being restored."""

    code = "restoring_backup"
    retry_after = 1


class Erasing(Conflict):
    """The tenant's state is being erased."""

    code = "erasing"
    retry_after = 1


class EraseFailed(Failed):
    """The tenant's state could not be erased completely."""

    code = "erase_failed"


class Unerasable(Conflict):
    """Saved state is at a sink that no sync spec refers to any more."""

    code = "out_of_reach"


class NotMissing(Conflict):
    """The tenant's last claim did not fail with state_missing or state_moved, so no state is missing."""

    code = "not_missing"


class Held(Conflict):
    """The tenant holds a container or has unsaved state. Release it first."""

    code = "held"


class BackupNotFound(NotFound):
    """No such backup."""

    code = "backup_not_found"


class Draining(Conflict):
    """The pool is draining and accepts no new claims."""

    code = "draining"


class ClaimAborted(Conflict):
    """The tenant was released while its claim was pending."""

    code = "claim_aborted"


class TerminalsOff(Conflict):
    """Terminals are disabled. Set BOILERHOUSE_TERMINAL=true to enable them."""

    code = "terminals_off"


class NotAssigned(Conflict):
    """The tenant holds no container."""

    code = "not_assigned"


class RestoreFailed(Failed):
    """The tenant's state could not be restored."""

    code = "restore_failed"


class SinkThrottled(Unavailable):
    """The sink throttles requests. The tenant holds nothing; claim again."""

    code = "sink_throttled"
    retry_after = 5


class StateMissing(Failed):
    """The tenant's state was saved but is no longer at the sink."""

    code = "state_missing"


class StateMoved(Failed):
    """The tenant's state was saved at another location."""

    code = "state_moved"


class LocationConflict(Failed):
    """The sync spec's locations overlap with another spec's. Nothing is restored until one of them is changed."""

    code = "location_conflict"


class PlaceChanged(Failed):
    """The sink is no longer the place that the sync spec was saved for. Save the spec again to use it as it is now."""

    code = "place_changed"


class HookFailed(Failed):
    """The workload's postClaim hook failed."""

    code = "hook_failed"

    def __init__(self, detail: str | None = None, output: str = "") -> None:
        super().__init__(detail)
        self.output = output
        """The hook's output, which may contain the tenant's secrets: only for roles that may read logs."""


class ContainerDied(Failed):
    """The container died while the claim was being prepared."""

    code = "container_died"


class SaveFailed(Failed):
    """The tenant's state could not be saved. Nothing was deleted, and the save is retried."""

    code = "save_failed"


class PoolExhausted(Unavailable):
    """No container became available in time."""

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
    """The outcome of the claim is unknown. Claim again to join it."""

    code = "outcome_unknown"
    retry_after = 1


class ClaimTimeout(TimedOut):
    """The claim timed out. The tenant holds nothing."""

    code = "claim_timeout"


OUTCOMES: dict[str, type[BoilerhouseError]] = {
    error.code: error
    for error in (
        ClaimAborted, RestoreFailed, StateMissing, StateMoved, LocationConflict, PlaceChanged, HookFailed,
        ContainerDied, PoolExhausted, PoolError, PoolPaused, EngineUnavailable, ClaimTimeout, Draining, SinkThrottled,
        Internal,
    )
}  # fmt: skip
"""The answer to a failed claim, by the outcome stored in its row."""
