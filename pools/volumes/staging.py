"""Staging: restored files arrive where the container cannot see them, and are moved in by rename."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path, PurePosixPath
from uuid import UUID

from boilerhouse.process import stalls
from pools.spec import Owner
from pools.volumes.entries import entries_of
from pools.volumes.handles import DIRECTORY, descend, directory_gone
from pools.volumes.paths import staging_dir, volume_path
from pools.volumes.removal import destroy


def new_staging(container_id: UUID, owner: Owner, name: str) -> Path:
    """A fresh, empty directory of the container's user, on the volume's file system."""
    path = staging_dir(container_id) / name
    if path.exists():
        destroy(path)
    try:
        path.mkdir(mode=0o700)
    except FileNotFoundError as error:
        raise directory_gone(path.parent) from error
    os.chown(path, *owner)
    return path


def move_in(
    container_id: UUID, owner: Owner, staging: Path, volume: Path, relative: PurePosixPath, replace: bool
) -> None:
    """Move restored files into the volume; with ``replace``, the previous content is deleted first."""
    aside = staging_dir(container_id) / f"old-{secrets.token_hex(4)}"
    aside.mkdir(mode=0o700)
    source, old = os.open(staging, DIRECTORY), os.open(aside, DIRECTORY)
    target = descend(volume, relative, create_for=owner)
    try:
        if replace:
            for name in os.listdir(target):
                stalls.moved()  # and never end half way
                os.rename(name, name, src_dir_fd=target, dst_dir_fd=old)
            for name in os.listdir(source):
                stalls.moved()
                os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
        else:
            _merge(source, target)
    finally:
        for descriptor in (source, old, target):
            os.close(descriptor)
    destroy(aside)
    destroy(staging)


def _is_there(parent: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _merge(source: int, target: int) -> None:
    """Move each entry; an existing directory keeps its mode, a new one brings its own."""
    for entry in entries_of(source, may_end=False):
        stalls.moved()
        if stat.S_ISDIR(entry.mode) and _is_there(target, entry.name):
            inner_source = os.open(entry.name, DIRECTORY, dir_fd=source)
            try:
                inner_target = os.open(entry.name, DIRECTORY, dir_fd=target)
                try:
                    _merge(inner_source, inner_target)
                finally:
                    os.close(inner_target)
            finally:
                os.close(inner_source)
        else:
            os.rename(entry.name, entry.name, src_dir_fd=source, dst_dir_fd=target)


def seed(container_id: UUID, owner: Owner, source: Path, volume: str) -> None:
    """Copy a directory of the host into a volume, owned by ``owner``; links stay links. Overwrites, never deletes."""
    staging = new_staging(container_id, owner, "seed")
    stalls.run(["cp", "-rP", "--preserve=mode,timestamps,links", "--", f"{source}/.", str(staging)])
    stalls.run(["chown", "-R", "--no-dereference", f"{owner.uid}:{owner.gid}", "--", str(staging)])
    move_in(container_id, owner, staging, volume_path(container_id, volume), PurePosixPath(), replace=False)
