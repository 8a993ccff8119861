"""Processes by their pid, and signals. Imports nothing large, because the supervisor of ``up`` uses it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """An event set by SIGINT and SIGTERM."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def die_with_parent() -> None:
    """Ask the kernel to kill this process when the thread that created it ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def end_with_parent() -> None:
    """Ask the kernel for SIGTERM when the thread that created this process ends: it ends others first."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def kill_group(leader: int) -> None:
    """SIGKILL what is left of the process group of a process that has just ended."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def children(pid: int) -> list[int]:
    """The current child processes of ``pid``; none if it has ended."""
    pids: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                pids += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    return pids


def descendants(pid: int) -> list[int]:
    return [pid_below for child in children(pid) for pid_below in (child, *descendants(child))]


def kill_tree(pid: int, extra: Iterable[int] = ()) -> None:
    """SIGKILL ``pid`` and all its descendants, the root first so that it cannot spawn more."""
    for victim in [pid, *descendants(pid), *extra]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
