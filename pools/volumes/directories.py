"""The directories of a container: made, checked and listed."""

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
from pools.volumes.handles import descend, gone
from pools.volumes.paths import containers_dir, home, staging_dir, trash_dir, volume_path


def prepare(container_id: UUID, uid: int, spec: WorkloadSpec) -> None:
    """Make a container's directories, volumes owned by its user, everything above for root only.

    Raises HostNotReady where the data directory itself is not there: what is made in an empty mount point is hidden
    when the mount comes back.
    """
    if not deployment.is_in_place():
        raise HostNotReady(f"{deployment.data_dir()} is not this deployment's data directory. Is it mounted?")
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
    """Make where the container's process begins, and its home, each where that lies in a volume, its user's.

    The engine would make the first root's, and the container could not write there. ``place`` says where a volume
    lies, ``image_dir`` is what the image says.
    """
    for path in (spec.working_dir or image_dir, spec.user.home):
        found = spec.volume_of(os.path.normpath(path or "/"))
        if found is not None and found[0].name != "secrets":
            volume, relative = found
            os.close(descend(place(volume.name), relative, create_for=spec.owner(uid)))


def check(container_id: UUID, spec: WorkloadSpec) -> None:
    """Return if every volume that ``prepare`` made is there. Raises DirectoryGone, HostNotReady."""
    for volume in spec.volumes:
        path = volume_path(container_id, volume.name)
        if not path.is_dir():
            raise gone(path)


def on_disk() -> dict[UUID, float]:
    """Every container that has a directory here, and when that was made or changed, in Unix seconds."""
    found: dict[UUID, float] = {}
    for parent in (containers_dir(), deployment.ram_dir()):
        if not parent.is_dir():
            continue
        for path in parent.iterdir():
            with contextlib.suppress(ValueError, FileNotFoundError):
                found[UUID(path.name)] = max(found.get(UUID(path.name), 0), path.stat().st_mtime)
    return found
