"""Deleted files that a container's processes still hold open: they use disk space that no directory walk finds."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from pools import freezer

PROC = Path("/proc")
LONGEST_S = 5.0
_CLOCK_EVERY = 200


def held_bytes(runtime_id: str, directory: Path) -> tuple[int, bool]:
    """Their disk space on the file system of ``directory``, and whether all were counted within 5 s.

    Nothing if the container's processes are not visible here.
    """
    device, until = directory.stat().st_dev, time.monotonic() + LONGEST_S
    sizes: dict[int, int] = {}
    for number, path in enumerate(_open_files(runtime_id)):
        if number % _CLOCK_EVERY == 0 and time.monotonic() > until:
            return sum(sizes.values()), False
        try:
            status = os.stat(path)
        except OSError:
            continue  # closed meanwhile
        if status.st_nlink == 0 and status.st_dev == device and stat.S_ISREG(status.st_mode):
            sizes[status.st_ino] = status.st_blocks * 512
    return sum(sizes.values()), True


def _open_files(runtime_id: str) -> Iterator[str]:
    group = freezer.group_of(runtime_id) if runtime_id else None
    if group is None:
        return
    try:
        pids = (group.control.parent / "cgroup.procs").read_text().split()
    except OSError:
        return  # the container has ended
    for pid in pids:
        try:
            with os.scandir(PROC / pid / "fd") as files:
                yield from (file.path for file in files)
        except OSError:
            continue  # it has ended, or may not be inspected here
