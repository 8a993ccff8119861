"""Locks between the processes of a node. The kernel frees one when the last process that holds it is dead."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def held(path: Path, *, wait: bool = False) -> Iterator[int | None]:
    """Hold the lock of a file, which is made where it is missing; yields its descriptor for a child to inherit.

    Yields None if another process holds the lock and ``wait`` is false.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor if _take(descriptor, wait) else None
    finally:
        os.close(descriptor)


def _take(descriptor: int, wait: bool) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
