"""Errors of specs, sinks and runs. ``SyncFailed.code`` is what a run's ``error.code`` says."""

from __future__ import annotations

from typing import ClassVar

from boilerhouse.core.errors import Conflict, Failed, Invalid, NotFound


class SyncSpecNotFound(NotFound):
    """There is no such sync spec."""

    code = "sync_spec_not_found"


class CredentialNotFound(NotFound):
    """There is no such credential."""

    code = "credential_not_found"


class CredentialInUse(Conflict):
    """Sync specs use the credential."""

    code = "in_use"


class CoverageHeld(Conflict):
    """Tenants hold containers whose state this spec saves; force drops that."""

    code = "coverage_held"


class ManualSyncOff(Invalid):
    """The spec does not allow a manual trigger."""

    code = "manual_sync_off"


class SyncFailed(Failed):
    """The transfer failed."""

    code = "failed"
    may_pass: ClassVar[bool] = False
    """Whether the same transfer may succeed a moment later."""


class TransferBroke(SyncFailed):
    """The transfer broke off for a reason that rclone's own words give."""

    may_pass = True


class SinkUnreachable(SyncFailed):
    """The sink does not answer."""

    code = "unreachable"
    may_pass = True


class SinkStumbled(SinkUnreachable):
    """The sink answers others, perhaps, but failed at this request."""

    after_s: float = 0
    """How long the sink asks to wait; 0 where it does not say."""


class SinkThrottled(SinkStumbled):
    """The sink asks for fewer requests."""

    code = "throttled"

    def __init__(self, detail: str | None = None, after_s: float = 0) -> None:
        super().__init__(detail)
        self.after_s = after_s


class SinkRefused(SyncFailed):
    """The sink does not take this kind of request."""


class SinkArchived(SyncFailed):
    """The object lies in an archive of the sink, and cannot be read at once."""

    code = "archived"


class ClockSkewed(SyncFailed):
    """This machine's clock differs too much from the sink's."""

    code = "clock_skew"


class SinkElsewhere(SyncFailed):
    """The bucket is in another region than the spec says."""

    code = "wrong_region"


class SinkDenied(SyncFailed):
    """The sink refuses the credentials or their rights."""

    code = "denied"


class SinkClosed(SyncFailed):
    """The sink's address is none that a sink may have."""

    code = "sink_closed"

    def __init__(self, host: str, port: int, address: str) -> None:
        where = host if host == address else f"{host} ({address})"
        end = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        super().__init__(
            f"No sink may be at {where}: that is this machine's own, its link's, or what a cloud tells its instances."
            f" If a sink is meant to be there, add {end} to BOILERHOUSE_ALLOWED_SINK_HOSTS and start again."
        )


class SinkRedirects(SyncFailed):
    """The sink sends its client elsewhere."""

    code = "sink_redirects"

    def __init__(self, address: str, to: str) -> None:
        super().__init__(
            f"{address} leads elsewhere ({to}), and redirects are not followed. Set the endpoint at which the sink"
            " itself answers."
        )


class SinkUntrusted(SyncFailed):
    """The sink's certificate is not vouched for by the certificates in use."""

    code = "untrusted"

    def __init__(self, said: str) -> None:
        super().__init__(
            f"{said.rstrip('.')}. For a private authority let BOILERHOUSE_CA_BUNDLE name the file of its certificates,"
            " and start again."
        )


class SinkMissing(SyncFailed):
    """The bucket does not exist."""

    code = "missing"


class SinkUnreliable(SyncFailed):
    """The sink does not give back what was written."""

    code = "unreliable"


class DiskFull(SyncFailed):
    """The disk is full."""

    code = "disk_full"


class Oversized(SyncFailed):
    """An object, or another answer of the sink, is longer than is read into memory."""

    code = "object_too_large"


class TransferStalled(SyncFailed):
    """Nothing of the transfer has moved for as long as the deployment allows."""

    code = "stalled"
    may_pass = True


class TooSlow(TransferStalled):
    """So little has moved that the transfer would hold a worker and a slot for as long as the sink likes."""


class TransferCancelled(SyncFailed):
    """The transfer was cancelled."""

    code = "cancelled"


class TransferInterrupted(SyncFailed):
    """Nobody could confirm in time that the claim still stands, so the transfer was ended."""

    code = "interrupted"


class BadFilter(SyncFailed):
    """rclone does not take the pattern or a flag."""

    code = "bad_filter"


class TooLarge(SyncFailed):
    """More files or bytes than a save may have; nothing was sent."""

    code = "too_large"


class Unsaveable(SyncFailed):
    """Something cannot be saved exactly."""

    code = "unsaveable"


class FileChanging(SyncFailed):
    """A file that is too large to be copied for a save changed each time while it was sent."""

    code = "file_changing"
    may_pass = True


class Incomplete(SyncFailed):
    """What arrived is not what was sent."""

    code = "incomplete"


class RemoteChanged(SyncFailed):
    """A newer claim of this tenant has written there; nothing was changed."""

    code = "remote_changed"


class VolumeInside(SyncFailed):
    """Another volume is mounted within the mapping's directory."""

    code = "volume_inside"


class DirectoryMissing(SyncFailed):
    """The container's directory is not on this node, so there is nothing that could be saved or restored."""

    code = "directory_missing"


class PathPlanted(SyncFailed):
    """A link or another object stands where the mapping's directory should be."""

    code = "path_planted"


class StateMissing(SyncFailed):
    """This tenant's state was saved there, but nothing is there now."""

    code = "state_missing"


class StateMoved(SyncFailed):
    """This tenant's state was saved at another location."""

    code = "state_moved"


class LocationConflict(SyncFailed):
    """The spec's locations meet those of another spec; nothing is transferred until one of them is changed."""

    code = "location_conflict"


class PlaceChanged(SyncFailed):
    """The sink leads to another place than when the spec was saved; nothing is transferred until it is saved again."""

    code = "place_changed"
