"""Creates, checks and lists containers' directories."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from boilerhouse.core import deployment
from pools import quota
from pools.errors import HostNotReady
from pools.spec import WorkloadSpec
from pools.volumes.handles import descend, directory_gone
from pools.volumes.paths import containers_dir, home, staging_dir, trash_dir, volume_path


def prepare(container_id: UUID, uid: int, spec: WorkloadSpec) -> None:
    """Create a container's directories: volumes owned by its user, everything above only for root.

    Raises HostNotReady if the data directory does not exist: files in an empty mount point are hidden when the mount
    returns.
    """
    if not deployment.is_in_place():
        raise HostNotReady(
            f"{deployment.data_dir()} is not this deployment's data directory. Check whether it is mounted."
        )
    for parent in (containers_dir(), trash_dir()):
        parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    home(container_id).mkdir(exist_ok=True, mode=0o700)
    (home(container_id) / "lock").touch(mode=0o600)
    quota.ensure(home(container_id), spec.resources.disk_mb)
    staging_dir(container_id).mkdir(exist_ok=True, mode=0o700)
    for volume in spec.volumes:
        path = volume_path(container_id, volume.name)
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.chown(path, *spec.owner(uid))
        path.chmod(0o500 if volume.name == "secrets" else 0o700)


def make_dirs(place: Callable[[str], Path], uid: int, spec: WorkloadSpec, image_dir: str) -> None:
    """Create the working directory and the home of the container's process if they are in a volume, owned by its user.

    The engine would create the first as root, and the container could not write to it. ``place`` returns a volume's
    path, ``image_dir`` is the image's working directory.
    """
    for path in (spec.working_dir or image_dir, spec.user.home):
        owner_volume = spec.volume_of(os.path.normpath(path or "/"))
        if owner_volume is not None and owner_volume[0].name != "secrets":
            volume, relative = owner_volume
            os.close(descend(place(volume.name), relative, create_for=spec.owner(uid)))


def check(container_id: UUID, spec: WorkloadSpec) -> None:
    """Check that every volume that ``prepare`` created exists. Raises DirectoryGone, HostNotReady."""
    for volume in spec.volumes:
        path = volume_path(container_id, volume.name)
        if not path.is_dir():
            raise directory_gone(path)


def on_disk() -> dict[UUID, float]:
    """Every container with a directory here, and when that was created or changed, in Unix seconds."""
    ages: dict[UUID, float] = {}
    for parent in (containers_dir(), deployment.ram_dir()):
        if not parent.is_dir():
            continue
        for path in parent.iterdir():
            with contextlib.suppress(ValueError, FileNotFoundError):
                ages[UUID(path.name)] = max(ages.get(UUID(path.name), 0), path.stat().st_mtime)
    return ages
