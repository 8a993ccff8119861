"""The lock of a container's directory: one process at a time works in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from boilerhouse.core import file_locks
from pools.errors import Locked
from pools.volumes.handles import directory_gone
from pools.volumes.paths import home


@contextmanager
def locked(container_id: UUID, *, within_s: float = 0.0) -> Iterator[int]:
    """Hold the container's file lock; yields its descriptor, which a child can inherit (hazards.md#b1).

    The kernel frees it only when the last process that holds the descriptor is dead, which may be never. Raises
    DirectoryGone if the directory does not exist, or was wiped during the wait; Locked if another process still holds
    it after ``within_s`` seconds.
    """
    path = home(container_id) / "lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError as error:
        raise directory_gone(path.parent) from error
    try:
        if not file_locks.take(descriptor, within_s):
            raise Locked(f"Another process is working on container {container_id}.")
        try:
            same = os.stat(path).st_ino == os.fstat(descriptor).st_ino
        except FileNotFoundError:
            same = False
        if not same:
            raise directory_gone(path.parent)
        yield descriptor
    finally:
        os.close(descriptor)
