"""Metadata of directory entries from their inodes, without opening a file."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from typing import NamedTuple, Self

from boilerhouse.process import stalling


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
    def of(cls, seen: os.stat_result) -> Self:
        return cls(seen.st_size, seen.st_mtime_ns, seen.st_ino, seen.st_ctime_ns)

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
    found = []
    for name in sorted(os.listdir(directory)):
        if may_end:
            stalling.step()
        if time.monotonic() > until:
            raise TimeoutError
        try:
            seen = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            continue  # a running tenant removed it meanwhile
        found.append(Entry(name, seen.st_mode, Stamp.of(seen), seen.st_blocks, seen.st_nlink))
    return found
