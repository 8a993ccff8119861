"""Errors of workloads, pools and containers."""

from __future__ import annotations

from boilerhouse.core.errors import BoilerhouseError, Conflict, Failed, NotFound, TimedOut, Unavailable


class WorkloadNotFound(NotFound):
    """There is no such workload."""

    code = "workload_not_found"


class PoolNotFound(NotFound):
    """There is no such pool."""

    code = "pool_not_found"


class ContainerNotFound(NotFound):
    """There is no such container."""

    code = "container_not_found"


class IdTaken(Conflict):
    """This id is taken."""

    code = "id_taken"


class WorkloadInUse(Conflict):
    """A pool uses this workload."""

    code = "workload_in_use"


class FixedImage(Conflict):
    """The workload names its image by digest or id, which never means another one."""

    code = "fixed_image"


class PoolInUse(Conflict):
    """Tenants hold containers of this pool; force releases them, with save."""

    code = "pool_in_use"


class BelowClaimed(Conflict):
    """The pool cannot be smaller than what tenants hold."""

    code = "below_claimed"


class NotClaimed(Conflict):
    """Nobody holds this container."""

    code = "not_claimed"


class Starting(Conflict):
    """The container is starting; it becomes idle or fails within its start period."""

    code = "starting"
    retry_after = 2


class RegistryCredentialNotFound(NotFound):
    """There is no such registry credential."""

    code = "registry_credential_not_found"


class RegistryCredentialInUse(Conflict):
    """Images of workloads are pulled with this registry credential."""

    code = "in_use"


class RegistryTaken(Conflict):
    """A credential is stored for this registry already."""

    code = "registry_taken"


class EngineUnavailable(Unavailable):
    """The container engine does not answer."""

    code = "engine_unavailable"


class EngineUnsupported(EngineUnavailable):
    """The container engine cannot be used; the words say what to do about it."""


class EngineTimeout(EngineUnavailable):
    """The container engine did not answer in time; it may still do what it was asked."""


class CreateTimeout(EngineTimeout):
    """The container engine did not say in time whether it made the container; it may still make it."""


class EngineFailure(Failed):
    """The container engine refused."""

    code = "engine_failed"


class ImageMissing(EngineFailure):
    """The image is not on this machine and could not be pulled."""

    code = "image_missing"


class ImagePending(Unavailable):
    """The image is being pulled."""

    code = "image_pending"
    retry_after = 5


class StartTakenOver(Conflict):
    """Another process starts this container by now, or it is to be removed."""

    code = "start_taken_over"


class ImageGone(ImageMissing):
    """The image that the version runs is not on this machine any more, and its tag names another one."""

    code = "image_gone"


class OtherImage(EngineFailure):
    """The version runs another image by now."""

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
    """The node cannot give what the workload asks for."""

    code = "cannot_give"


class NotAsAsked(EngineFailure):
    """The engine made another container than it was asked for."""

    code = "not_as_asked"


class SeedMissing(EngineFailure):
    """The workload's seed directory is not on this host."""

    code = "seed_missing"


class NotRunning(EngineFailure):
    """The container is not running."""

    code = "container_not_running"


class NameTaken(EngineFailure):
    """The engine already has a container of this name."""

    code = "name_taken"


class NeverHealthy(EngineFailure):
    """The container did not become healthy in time."""

    code = "never_healthy"


class OtherNode(Unavailable):
    """The container is on another node than the one that was asked."""

    code = "other_node"


class HostNotReady(Unavailable):
    """This host cannot isolate containers yet."""

    code = "host_not_ready"


class DirtyContainer(BoilerhouseError):
    """The latch says that another tenant's data has been in this container."""

    code = "dirty_container"


class DirectoryGone(BoilerhouseError):
    """The container's directory is not on this node."""

    code = "directory_missing"


class Locked(BoilerhouseError):
    """Something else works on the container and has not ended in time."""

    code = "container_locked"


class ExecTimedOut(TimedOut):
    """The command did not end within its time."""

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
        """``stdout`` and ``stderr`` are what it had printed until then."""
        self.stdout, self.stderr = stdout, stderr
        self.stdout_truncated, self.stderr_truncated = stdout_truncated, stderr_truncated
        super().__init__(detail)
