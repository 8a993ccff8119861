"""Limits slow work, so that one worker thread of its queue stays free for all other work: large work, and work with one
sink (P14)."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from django.conf import settings

from boilerhouse.core import context, file_locks
from boilerhouse.core.deployment import data_dir

BRIEF_S = 1.0
"""Work that has run for a shorter time may end at any moment, so waiting for it is worthwhile."""
PATIENCE_S = 0.3
"""How long to wait; meanwhile the worker thread serves nothing else."""
_LOOK_S = 0.01
MIN_PAUSE_S, MAX_PAUSE_S = 0.5, 5.0


@contextmanager
def entered(size: int) -> Iterator[bool]:
    """Whether work on this many bytes may start here. While the block runs, large work holds a slot.

    False: on this node, all worker threads of the queue but one are busy with large work. There is no limit outside
    queues.
    """
    queue = context.queue()
    if size < settings.BOILERHOUSE_LARGE_BYTES or queue not in settings.QUEUES:
        yield True
        return
    with _place(f"large-{queue}", int(settings.QUEUES[queue]["workers"]) - 1) as is_held:
        yield is_held


@contextmanager
def entered_slow(*, is_slow: bool) -> Iterator[bool]:
    """Whether work that another party slows down, such as a sink that hardly answers, may start here: one at a time."""
    queue = context.queue()
    if not is_slow or queue not in settings.QUEUES:
        yield True
        return
    with _place(f"slow-{queue}", 1) as is_held:
        yield is_held


@contextmanager
def entered_for(far_ends: Collection[str]) -> Iterator[bool]:
    """Whether work with these sinks may start here. While the block runs, it holds a slot of each.

    False: on this node, work with one of them holds all worker threads of the queue but one, and none of it has just
    begun. If the sink hangs, it would hold them indefinitely.
    """
    queue = context.queue()
    if queue not in settings.QUEUES:
        yield True
        return
    count = max(1, int(settings.QUEUES[queue]["workers"]) - 1)
    with ExitStack() as locks:
        names = sorted(f"with-{queue}-{named(server)}" for server in far_ends)  # a fixed order prevents a deadlock
        yield all(_is_entered(locks, name, count) for name in names)


def pause_s(stood_s: float) -> float:
    """When to try again to get a slot. Entries that have waited long are many, so their interval grows."""
    return min(MAX_PAUSE_S, max(MIN_PAUSE_S, stood_s / 4))


def named(far_end: str) -> str:
    """A sink's name as part of a file name."""
    return hashlib.sha256(far_end.encode()).hexdigest()[:16]


def _is_entered(locks: ExitStack, name: str, count: int) -> bool:
    give_up = time.monotonic() + PATIENCE_S
    while not locks.enter_context(_place(name, count)):
        if time.monotonic() > give_up or not _ends_soon(name, count):
            return False
        time.sleep(_LOOK_S)
    return True


def _ends_soon(name: str, count: int) -> bool:
    """Whether the work in one of the slots has just begun."""
    now = time.time()
    return any(now - path.stat().st_mtime < BRIEF_S for path in _paths(name, count) if path.exists())


@contextmanager
def _place(name: str, count: int) -> Iterator[bool]:
    for path in _paths(name, count):
        with file_locks.locked(path) as place:
            if place is not None:
                os.utime(place)  # the time at which it was taken
                yield True
                return
    yield False


def _paths(name: str, count: int) -> Iterator[Path]:
    directory = data_dir() / "slots"
    directory.mkdir(exist_ok=True, mode=0o700)
    for number in range(count):
        yield directory / f"{name}-{number}"
