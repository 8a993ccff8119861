"""A census of everything below a directory, without opening a file."""

from __future__ import annotations

import math
import os
import stat
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from boilerhouse.process import stalls
from pools.file_names import plain
from pools.volumes.entries import Entry, Stamp, entries_of
from pools.volumes.handles import DIRECTORY, KEPT_BITS, PLAIN_DIR, PLAIN_FILE

ANY_SIZE = sys.maxsize
MAX_PATH_BYTES = 900
"""Longest path below a mapping that fits into an object key of 1,024 bytes with its prefix."""


@dataclass(slots=True)
class Census:
    """The content of a directory: counts, and all attributes that object storage lacks."""

    files: int = 0
    bytes: int = 0
    modes: dict[str, int] = field(default_factory=dict)
    """Path → mode, of files and directories with a mode other than 0644 / 0755."""
    links: dict[str, str] = field(default_factory=dict)
    """Path → target, of symbolic links."""
    empty_dirs: list[str] = field(default_factory=list)
    names: dict[str, None] = field(default_factory=dict)
    """Paths (without values) whose last part contains characters that sinks spell differently."""
    skipped: list[str] = field(default_factory=list)
    """Sockets, FIFOs and devices."""
    unsaveable: list[tuple[str, str]] = field(default_factory=list)
    """Path and reason, of files that cannot be saved exactly."""
    stamps: dict[str, Stamp] = field(default_factory=dict)
    """Path → stamp, of every file."""
    sparse: dict[str, None] = field(default_factory=dict)
    """Sparse files."""
    grows: dict[str, int] = field(default_factory=dict)
    """Path → bytes of additional disk use of a restored file: sparse, or a further hard link."""
    is_cut: bool = False
    """There are more files than the limit; the rest was not read."""

    def sizes(self) -> dict[str, int]:
        """Path → size, of every file."""
        return {path: stamp.size for path, stamp in self.stamps.items()}

    def correct(self, path: str, stamp: Stamp | None) -> None:
        """Replace a file's entry by what was copied of it, if that differs; None: the file was deleted by then."""
        counted = self.stamps.get(path)
        if counted is None or counted == stamp:
            return
        self.bytes += (stamp.size if stamp else 0) - counted.size
        if stamp:
            self.stamps[path] = stamp
            return
        self.files -= 1
        del self.stamps[path]
        for attributes in (self.modes, self.grows, self.names, self.sparse):
            attributes.pop(path, None)


def census(
    root: int,
    matches: Callable[[str], bool] | None,
    max_file_bytes: int,
    *,
    max_path_bytes: int = MAX_PATH_BYTES,
    max_entries: int = sys.maxsize,
    until: float = math.inf,
) -> Census:
    """Take the census of the open directory ``root``, without changing anything there.

    Files with longer paths or larger sizes are ``unsaveable``. It ends at ``max_entries`` files, links and directories.
    ``matches`` limits files and links to a mapping's pattern; None means everything. Raises TimeoutError if it takes
    longer than ``until`` (monotonic seconds).
    """
    result, counted = Census(), 0
    named: set[int] = set()
    stack: list[tuple[int, str, list[Entry]]] = [(os.dup(root), "", entries_of(root, until=until))]
    try:
        while stack:
            stalls.step()
            if time.monotonic() > until:
                raise TimeoutError
            directory, prefix, entries = stack[-1]
            if not entries:
                os.close(stack.pop()[0])
                continue
            entry, counted = entries.pop(), counted + 1
            if counted > max_entries:
                result.is_cut = True
                return result
            path, mode = prefix + entry.name, entry.mode & KEPT_BITS
            is_selected = matches is None or matches(path)
            if plain(entry.name) != entry.name and (is_selected or stat.S_ISDIR(entry.mode)):
                result.names[path] = None
            if len(os.fsencode(path)) > min(max_path_bytes, MAX_PATH_BYTES):
                if is_selected or stat.S_ISDIR(entry.mode):
                    result.unsaveable.append((path[:200] + "…", "its path is too long for the sink"))
            elif stat.S_ISDIR(entry.mode):
                try:
                    inner = os.open(entry.name, DIRECTORY, dir_fd=directory)
                except (FileNotFoundError, NotADirectoryError):
                    continue  # replaced meanwhile by a running tenant; never followed
                children = entries_of(inner, until=until)
                if matches is None:
                    if mode != PLAIN_DIR:
                        result.modes[path] = mode
                    if not children:
                        result.empty_dirs.append(path)
                stack.append((inner, f"{path}/", children))
            elif not is_selected:
                continue
            elif stat.S_ISREG(entry.mode):
                if entry.size > max_file_bytes:
                    result.unsaveable.append((path, f"it has {entry.size} bytes; the limit is {max_file_bytes}"))
                result.files += 1
                result.bytes += entry.size
                result.stamps[path] = entry.stamp
                if entry.has_holes:
                    result.sparse[path] = None
                if entry.has_holes or entry.links > 1:
                    here = 0 if entry.stamp.inode in named else entry.blocks * 512
                    named.add(entry.stamp.inode)
                    if entry.size > here:
                        result.grows[path] = entry.size - here
                if mode != PLAIN_FILE:
                    result.modes[path] = mode
            elif stat.S_ISLNK(entry.mode):
                try:
                    result.links[path] = os.readlink(entry.name, dir_fd=directory)
                except OSError:
                    continue  # no longer a link: the tenant's next save includes it
            else:
                result.skipped.append(path)
    finally:
        for directory, _, _ in stack:
            os.close(directory)
    return result
