"""Errors of specs, sinks and runs. ``SyncFailed.code`` becomes the run's ``error.code``."""

from __future__ import annotations

from typing import ClassVar

from boilerhouse.core.errors import Conflict, Failed, Invalid, NotFound


class SyncSpecNotFound(NotFound):
    """No such sync spec."""

    code = "sync_spec_not_found"


class CredentialNotFound(NotFound):
    """No such credential."""

    code = "credential_not_found"


class CredentialInUse(Conflict):
    """Sync specs use the credential."""

    code = "in_use"


class CoverageHeld(Conflict):
    """Tenants hold containers whose state this spec saves. With force, it is no longer saved."""

    code = "coverage_held"


class ManualSyncOff(Invalid):
    """The spec does not allow a manual trigger."""

    code = "manual_sync_off"


class SyncFailed(Failed):
    """The transfer failed."""

    code = "failed"
    may_pass: ClassVar[bool] = False
    """Whether the same transfer may succeed when it is retried."""


class TransferBroke(SyncFailed):
    """The transfer failed; the detail is rclone's message."""

    may_pass = True


class SinkUnreachable(SyncFailed):
    """The sink does not answer."""

    code = "unreachable"
    may_pass = True


class SinkStumbled(SinkUnreachable):
    """The sink failed this request; others may succeed."""

    after_s: float = 0
    """The seconds that the sink asks to wait; 0 if it does not say."""


class SinkThrottled(SinkStumbled):
    """The sink throttles requests."""

    code = "throttled"

    def __init__(self, detail: str | None = None, after_s: float = 0) -> None:
        super().__init__(detail)
        self.after_s = after_s


class SinkRefused(SyncFailed):
    """The sink does not support this request."""


class SinkArchived(SyncFailed):
    """The object is in an archive storage class of the sink and cannot be read immediately."""

    code = "archived"


class ClockSkewed(SyncFailed):
    """This machine's clock differs too much from the sink's."""

    code = "clock_skew"


class SinkElsewhere(SyncFailed):
    """The bucket is in another region than the spec says."""

    code = "wrong_region"


class SinkDenied(SyncFailed):
    """The sink rejects the credentials, or they lack a permission."""

    code = "denied"


class SinkClosed(SyncFailed):
    """A sink may not be at this address."""

    code = "sink_closed"

    def __init__(self, host: str, port: int, address: str) -> None:
        where = host if host == address else f"{host} ({address})"
        end = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        super().__init__(
            f"A sink may not be at {where}: the address belongs to this machine, to a link, or to a cloud's"
            f" metadata service. To allow it, add {end} to BOILERHOUSE_ALLOWED_SINK_HOSTS and restart."
        )


class SinkRedirects(SyncFailed):
    """The sink redirects its client."""

    code = "sink_redirects"

    def __init__(self, address: str, to: str) -> None:
        super().__init__(
            f"{address} redirects to {to}, and redirects are not followed. Set the endpoint at which the sink"
            " itself answers."
        )


class SinkUntrusted(SyncFailed):
    """The sink's certificate is not signed by a trusted authority."""

    code = "untrusted"

    def __init__(self, message: str) -> None:
        super().__init__(
            f"{message.rstrip('.')}. For a private authority, set BOILERHOUSE_CA_BUNDLE to the file with its"
            " certificates, and restart."
        )


class HostKeyUnknown(SyncFailed):
    """The sink shows a host key that the spec does not name, so it is told nothing."""

    code = "untrusted"

    def __init__(self, message: str) -> None:
        super().__init__(f"{message} If the server has a new key, compare it there, and set hostKeys.")


class SinkMissing(SyncFailed):
    """The bucket does not exist."""

    code = "missing"


class SinkUnreliable(SyncFailed):
    """The sink does not return what was written."""

    code = "unreliable"


class DiskFull(SyncFailed):
    """The disk is full."""

    code = "disk_full"


class Oversized(SyncFailed):
    """An object or another answer of the sink is too large to read into memory."""

    code = "object_too_large"


class TransferStalled(SyncFailed):
    """The transfer has made no progress for the time that the deployment allows."""

    code = "stalled"
    may_pass = True


class TooSlow(TransferStalled):
    """The transfer is slower than the deployment allows, so it would occupy a worker and a slot indefinitely."""


class TransferCancelled(SyncFailed):
    """The transfer was cancelled."""

    code = "cancelled"


class TransferInterrupted(SyncFailed):
    """The transfer was stopped, because it could not be confirmed in time that the claim is still live."""

    code = "interrupted"


class BadFilter(SyncFailed):
    """rclone does not accept the pattern or a flag."""

    code = "bad_filter"


class TooLarge(SyncFailed):
    """The state has more files or bytes than a save may have. Nothing was sent."""

    code = "too_large"


class Unsaveable(SyncFailed):
    """Something cannot be saved exactly."""

    code = "unsaveable"


class FileChanging(SyncFailed):
    """A file that is too large to copy for a save changed during each attempt to send it."""

    code = "file_changing"
    may_pass = True


class Incomplete(SyncFailed):
    """The transferred files differ from the originals."""

    code = "incomplete"


class RemoteChanged(SyncFailed):
    """A newer claim of this tenant has saved to this location. Nothing was changed."""

    code = "remote_changed"


class VolumeInside(SyncFailed):
    """Another volume is mounted inside the mapping's directory."""

    code = "volume_inside"


class DirectoryMissing(SyncFailed):
    """The container's directory is not on this node, so nothing can be saved or restored."""

    code = "directory_missing"


class PathPlanted(SyncFailed):
    """The path of the mapping is a link or another object, not a directory."""

    code = "path_planted"


class StateMissing(SyncFailed):
    """This tenant's state was saved at this location, but nothing is there now."""

    code = "state_missing"


class StateMoved(SyncFailed):
    """This tenant's state was saved at another location."""

    code = "state_moved"


class LocationConflict(SyncFailed):
    """The spec's locations overlap with another spec's. Nothing is transferred until one of them is changed."""

    code = "location_conflict"


class PlaceChanged(SyncFailed):
    """The sink is no longer the place that the spec was saved for. Nothing is transferred until it is saved again."""

    code = "place_changed"
