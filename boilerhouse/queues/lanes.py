"""Work that may take long leaves a worker of its queue to all other work: large work, and work with one sink (P14)."""

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
"""Work that has been under way for no longer may end at any moment, and is waited for."""
PATIENCE_S = 0.3
"""For how long; meanwhile the worker serves nobody else."""
_LOOK_S = 0.01
MIN_PAUSE_S, MAX_PAUSE_S = 0.5, 5.0


@contextmanager
def entered(size: int) -> Iterator[bool]:
    """Whether work on so many bytes may begin here; while the block runs it holds a place if it is large.

    False: on this node all workers of the queue but one are busy with large work. Nothing is limited outside of queues.
    """
    queue = context.queue()
    if size < settings.BOILERHOUSE_LARGE_BYTES or queue not in settings.QUEUES:
        yield True
        return
    with _place(f"large-{queue}", int(settings.QUEUES[queue]["workers"]) - 1) as is_held:
        yield is_held


@contextmanager
def entered_slow(*, is_slow: bool) -> Iterator[bool]:
    """Whether work that is slow for another's sake, as a sink that hardly answers, may begin here: one at a time."""
    queue = context.queue()
    if not is_slow or queue not in settings.QUEUES:
        yield True
        return
    with _place(f"slow-{queue}", 1) as is_held:
        yield is_held


@contextmanager
def entered_for(far_ends: Collection[str]) -> Iterator[bool]:
    """Whether work with these sinks may begin here; while the block runs it holds a place of each.

    False: on this node work with one of them holds all workers of the queue but one, and none of it has begun only
    now: were the sink to stand still, it would hold them for as long as it likes.
    """
    queue = context.queue()
    if queue not in settings.QUEUES:
        yield True
        return
    count = max(1, int(settings.QUEUES[queue]["workers"]) - 1)
    with ExitStack() as held:
        names = sorted(f"with-{queue}-{named(one)}" for one in far_ends)  # in one order: nobody waits in a ring
        yield all(_is_entered(held, name, count) for name in names)


def pause_s(stood_s: float) -> float:
    """When to look again for a place for work that has stood in line so long: who has waited long is many."""
    return min(MAX_PAUSE_S, max(MIN_PAUSE_S, stood_s / 4))


def named(far_end: str) -> str:
    """A sink's name as part of a file's."""
    return hashlib.sha256(far_end.encode()).hexdigest()[:16]


def _is_entered(held: ExitStack, name: str, count: int) -> bool:
    give_up = time.monotonic() + PATIENCE_S
    while not held.enter_context(_place(name, count)):
        if time.monotonic() > give_up or not _ends_soon(name, count):
            return False
        time.sleep(_LOOK_S)
    return True


def _ends_soon(name: str, count: int) -> bool:
    """Whether one of those that hold the places has begun only now."""
    now = time.time()
    return any(now - path.stat().st_mtime < BRIEF_S for path in _paths(name, count) if path.exists())


@contextmanager
def _place(name: str, count: int) -> Iterator[bool]:
    for path in _paths(name, count):
        with file_locks.held(path) as place:
            if place is not None:
                os.utime(place)  # since when it is held
                yield True
                return
    yield False


def _paths(name: str, count: int) -> Iterator[Path]:
    directory = data_dir() / "slots"
    directory.mkdir(exist_ok=True, mode=0o700)
    for number in range(count):
        yield directory / f"{name}-{number}"
