"""The target of a transfer: a container with its lock held, and a mapping's directory in its volumes."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from uuid import UUID

from pools import errors as pool_errors
from pools import mounts
from pools.nodes import NodeAccess
from pools.spec import Owner, WorkloadSpec
from syncing import errors
from syncing.models import SyncMapping


@dataclass(frozen=True, slots=True)
class TransferTarget:
    """The container of a transfer, with its lock held."""

    container_id: UUID
    owner: Owner
    pool_id: str
    spec: WorkloadSpec
    tenant_id: str
    generation: int
    lock: int
    """Descriptor of the held lock, which every rclone inherits."""
    node: NodeAccess
    is_stopped: bool


def place_of(target: TransferTarget, mapping: SyncMapping) -> tuple[Path, PurePosixPath]:
    """The volume on this node that contains the mapping's directory, and the path in it. Raises DirectoryMissing."""
    owner_volume = target.spec.volume_of(mapping.container_path)
    if owner_volume is None:
        raise errors.SyncFailed(
            f"{mapping.container_path} is not inside a volume of this container's workload version."
        )
    volume, relative = owner_volume
    try:
        return target.node.volumes.volume_path(target.container_id, volume.name), relative
    except (pool_errors.DirectoryGone, pool_errors.HostNotReady) as error:  # its own file system, which does not exist
        raise errors.DirectoryMissing(error.detail) from error


def check_alone(target: TransferTarget, mapping: SyncMapping) -> None:
    """Raise VolumeInside if moving files in would unmount another volume in the container."""
    if other := mounts.inside(target.spec, mapping.container_path):
        raise errors.VolumeInside(
            f"The volume {other.name} ({other.container_path}) is mounted inside {mapping.container_path}, so"
            " nothing can be restored around it. Save the workload with its volumes beside each other."
        )


@contextmanager
def planted(mapping: SyncMapping) -> Iterator[None]:
    """Within the block, an obstacle raises PathPlanted, and a missing volume DirectoryMissing."""
    try:
        yield
    except pool_errors.DirectoryGone as error:
        raise errors.DirectoryMissing(error.detail) from error
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY):
            raise errors.PathPlanted(f"{mapping.container_path} is not a directory.") from error
        raise
