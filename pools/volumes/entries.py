"""Metadata of directory entries from their inodes, without opening a file."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from typing import NamedTuple, Self

from boilerhouse.process import stalls


class Stamp(NamedTuple):
    """What a file's inode reveals about its content.

    Equal stamps mean equal content if the file was synced (``copies``) at the time of the first: no container can set a
    ctime.
    """

    size: int
    mtime_ns: int
    inode: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        return cls(status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns)

    def is_settled(self, at_ns: int) -> bool:
        """Whether a change after ``at_ns`` gets another ctime: file system clocks tick, some once per second."""
        tick = COARSE_TICK_NS if self.ctime_ns % 1_000_000_000 == 0 else FINE_TICK_NS
        return at_ns - self.ctime_ns > tick


FINE_TICK_NS, COARSE_TICK_NS = 50_000_000, 1_050_000_000


@dataclass(frozen=True, slots=True)
class Entry:
    name: str
    mode: int
    stamp: Stamp
    blocks: int
    """Its disk use in blocks of 512 bytes."""
    links: int
    """Its number of hard links."""

    @property
    def has_holes(self) -> bool:
        return self.size >= 4096 and self.blocks * 512 + 4096 <= self.size

    @property
    def size(self) -> int:
        return self.stamp.size

    @property
    def mtime_ns(self) -> int:
        return self.stamp.mtime_ns


def entries_of(directory: int, *, until: float = math.inf, may_end: bool = True) -> list[Entry]:
    """Raises TimeoutError, and what ``stalling.step`` raises if the work is to end."""
    entries = []
    for name in sorted(os.listdir(directory)):
        if may_end:
            stalls.step()
        if time.monotonic() > until:
            raise TimeoutError
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            continue  # a running tenant removed it meanwhile
        entries.append(Entry(name, status.st_mode, Stamp.of(status), status.st_blocks, status.st_nlink))
    return entries
