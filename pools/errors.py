"""Errors of workloads, pools and containers."""

from __future__ import annotations

from boilerhouse.core.errors import (
    BoilerhouseError,
    Conflict,
    Elsewhere,
    Failed,
    NotFound,
    TimedOut,
    TooMany,
    Unavailable,
)


class WorkloadNotFound(NotFound):
    """No such workload."""

    code = "workload_not_found"


class PoolNotFound(NotFound):
    """No such pool."""

    code = "pool_not_found"


class ContainerNotFound(NotFound):
    """No such container."""

    code = "container_not_found"


class VersionNotFound(NotFound):
    """The workload has no such version."""

    code = "version_not_found"


class SameVersion(Conflict):
    """The version is the newest one already."""

    code = "same_version"


class IdTaken(Conflict):
    """The id is already in use."""

    code = "id_taken"


class WorkloadInUse(Conflict):
    """A pool uses this workload."""

    code = "workload_in_use"


class FixedImage(Conflict):
    """The workload names its image by digest or id, so there is nothing to refresh."""

    code = "fixed_image"


class PoolInUse(Conflict):
    """Tenants hold containers of this pool. With force, they are saved and released."""

    code = "pool_in_use"


class BelowClaimed(Conflict):
    """The pool cannot be smaller than its number of claimed containers."""

    code = "below_claimed"


class NotClaimed(Conflict):
    """No tenant holds this container."""

    code = "not_claimed"


class Starting(Conflict):
    """The container is starting; it becomes idle or fails within its start period."""

    code = "starting"
    retry_after = 2


class RegistryCredentialNotFound(NotFound):
    """No such registry credential."""

    code = "registry_credential_not_found"


class RegistryCredentialInUse(Conflict):
    """Workloads use this registry credential to pull their images."""

    code = "in_use"


class RegistryTaken(Conflict):
    """This registry already has a credential."""

    code = "registry_taken"


class EngineUnavailable(Unavailable):
    """The container engine does not answer."""

    code = "engine_unavailable"


class EngineUnsupported(EngineUnavailable):
    """The container engine cannot be used. The detail says how to fix it."""


class EngineTimeout(EngineUnavailable):
    """The container engine did not answer in time. It may still complete the request."""


class CreateTimeout(EngineTimeout):
    """The container engine did not answer in time. It may still create the container."""


class EngineFailure(Failed):
    """The container engine refused the request."""

    code = "engine_failed"


class ImageMissing(EngineFailure):
    """The image is not on this node and could not be pulled."""

    code = "image_missing"


class ImagePending(Unavailable):
    """The image is being pulled."""

    code = "image_pending"
    retry_after = 5


class StartTakenOver(Conflict):
    """Another process has taken over this start, or the container is being removed."""

    code = "start_taken_over"


class ImageGone(ImageMissing):
    """The image that the version runs is no longer on this node, and its tag now names another image."""

    code = "image_gone"


class OtherImage(EngineFailure):
    """The version now runs another image."""

    code = "other_image"


class ContainerMissing(EngineFailure):
    """The engine has no such container."""

    code = "container_missing"


class BadCommand(EngineFailure):
    """The image cannot run this command."""

    code = "bad_command"


class CannotMount(EngineFailure):
    """The workload's volumes cannot be mounted together."""

    code = "cannot_mount"


class CannotGive(EngineFailure):
    """The node cannot provide what the workload requires."""

    code = "cannot_give"


class NotAsAsked(EngineFailure):
    """The engine created a container that differs from the request."""

    code = "not_as_asked"


class SeedMissing(EngineFailure):
    """The workload's seed directory is not on this host."""

    code = "seed_missing"


class NotRunning(EngineFailure):
    """The container is not running."""

    code = "container_not_running"


class NameTaken(EngineFailure):
    """The engine already has a container with this name."""

    code = "name_taken"


class NeverHealthy(EngineFailure):
    """The container did not become healthy in time."""

    code = "never_healthy"


class OtherNode(Elsewhere):
    """The container is on another node."""


class HostNotReady(Unavailable):
    """This host cannot isolate containers yet."""

    code = "host_not_ready"


class DirtyContainer(BoilerhouseError):
    """The container's latch records that it has held another tenant's data."""

    code = "dirty_container"


class DirectoryGone(BoilerhouseError):
    """The container's directory is not on this node."""

    code = "directory_missing"


class Locked(BoilerhouseError):
    """Another process is working on the container and has not finished in time."""

    code = "container_locked"


class CommandLost(EngineFailure):
    """The command's connection broke before it ended. Whether it ran to its end is unknown."""

    code = "command_lost"


class CommandNotFound(NotFound):
    """No such command in this container: it never was, or it ended more than ten minutes ago."""

    code = "command_not_found"


class NeedsAgent(Conflict):
    """This container has no guest agent that can do this; without one, only commands that are waited for run."""

    code = "needs_guest_agent"


class TooManyKept(TooMany):
    """The maximum number of commands runs in this container, or of connections to one. Wait for one to end."""

    code = "too_many_commands"


class InputClosed(Conflict):
    """The command's input is closed."""

    code = "input_closed"


class CommandEnded(Conflict):
    """The command has ended."""

    code = "command_ended"


class ExecTimedOut(TimedOut):
    """The command timed out."""

    code = "exec_timed_out"

    def __init__(
        self,
        detail: str | None = None,
        stdout: bytes = b"",
        stderr: bytes = b"",
        *,
        stdout_truncated: bool = False,
        stderr_truncated: bool = False,
    ) -> None:
        """``stdout`` and ``stderr`` are the output so far."""
        self.stdout, self.stderr = stdout, stderr
        self.stdout_truncated, self.stderr_truncated = stdout_truncated, stderr_truncated
        super().__init__(detail)
