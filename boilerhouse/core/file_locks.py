"""Locks between the processes of a node. The kernel frees a lock when the last process that holds it has died."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LOOK_S = 0.005


@contextmanager
def locked(path: Path, *, within_s: float = 0.0) -> Iterator[int | None]:
    """Hold the lock of a file, which is created if missing. Yields its descriptor, which a child process can inherit.

    Yields None if another process still holds the lock after ``within_s`` seconds.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor if take(descriptor, within_s) else None
    finally:
        os.close(descriptor)


def take(descriptor: int, within_s: float = 0.0, *, is_shared: bool = False) -> bool:
    """Whether the descriptor acquired the lock within ``within_s`` seconds.

    This polls, because a blocking request has no timeout: a holder may be stopped or stuck in the kernel.
    """
    give_up = time.monotonic() + within_s
    while True:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= give_up:
                return False
            time.sleep(_LOOK_S)
        else:
            return True
