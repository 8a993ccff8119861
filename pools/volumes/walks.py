"""A bounded walk over a container's volumes: their size, and when they last changed."""

from __future__ import annotations

import errno
import os
import stat
import time
from dataclasses import dataclass
from uuid import UUID

from pools.volumes.handles import DIRECTORY, open_directory
from pools.volumes.inventory import ANY_SIZE
from pools.volumes.paths import volume_path

MAX_WALK_ENTRIES, MAX_WALK_S, MAX_WALK_DEPTH = 20_000, 1.0, 200
_CLOCK_EVERY = 100
_REPLACED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""Errors that a concurrent change by a running tenant causes."""


@dataclass(slots=True)
class Walked:
    """The result of a bounded walk over a container's volumes."""

    bytes: int = 0
    entries: int = 0
    """Files, directories and all other entries."""
    newest_change: float = 0.0
    """The newest inode change (ctime, because mtime can be set to 2099), in Unix seconds; 0 if there is nothing."""
    is_complete: bool = True


@dataclass(frozen=True, slots=True)
class WalkBounds:
    """The limits at which a walk ends incomplete."""

    entries: int = MAX_WALK_ENTRIES
    bytes: int = ANY_SIZE
    seconds: float = MAX_WALK_S


def walk(container_id: UUID, names: list[str], bounds: WalkBounds = WalkBounds()) -> Walked:
    """Measure the volumes ``names`` without opening a file or following a link, and at most 200 levels deep.

    Raises DirectoryGone if a volume does not exist, because then nothing is known about it.
    """
    result, until = Walked(), time.monotonic() + bounds.seconds
    for name in names:
        root = open_directory(volume_path(container_id, name))
        try:
            _walk_below(root, result, bounds, until)
        finally:
            os.close(root)
        if not result.is_complete:
            break
    return result


def _walk_below(root: int, result: Walked, bounds: WalkBounds, until: float) -> None:
    """Add the content of the open directory; each level stays open while it is read, so no path is followed."""
    result.newest_change = max(result.newest_change, os.fstat(root).st_ctime)
    levels = [os.scandir(root)]
    descriptors: list[int] = []
    try:
        while levels:
            entry = next(levels[-1], None)
            if entry is None:
                levels.pop().close()
                if descriptors:
                    os.close(descriptors.pop())
                continue
            result.entries += 1
            is_late = result.entries % _CLOCK_EVERY == 0 and time.monotonic() > until
            if is_late or result.entries > bounds.entries or result.bytes > bounds.bytes:
                result.is_complete = False
                return
            try:
                status = entry.stat(follow_symlinks=False)
                result.bytes += status.st_blocks * 512
                result.newest_change = max(result.newest_change, status.st_ctime)
                if not stat.S_ISDIR(status.st_mode):
                    continue
                if len(levels) >= MAX_WALK_DEPTH:
                    result.is_complete = False
                    return
                descriptors.append(os.open(entry.name, DIRECTORY, dir_fd=descriptors[-1] if descriptors else root))
                levels.append(os.scandir(descriptors[-1]))
            except OSError as error:
                if error.errno not in _REPLACED:
                    raise
    finally:
        for level in levels:
            level.close()
        for descriptor in descriptors:
            os.close(descriptor)
