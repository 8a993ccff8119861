"""Large work may take hours, and leaves a worker of its queue to all other work (P14)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings

from boilerhouse.core import file_locks
from boilerhouse.core.deployment import data_dir


@contextmanager
def entered(size: int) -> Iterator[bool]:
    """Whether work on so many bytes may begin here; while the block runs it holds a place if it is large.

    False: on this node all workers of the queue but one are busy with large work. Nothing is limited outside of queues.
    """
    queue = os.environ.get("Q_CLUSTER_NAME", "")
    if size < settings.BOILERHOUSE_LARGE_BYTES or queue not in settings.QUEUES:
        yield True
        return
    with _place(f"large-{queue}", int(settings.QUEUES[queue]["workers"]) - 1) as is_held:
        yield is_held


@contextmanager
def entered_slow(*, is_slow: bool) -> Iterator[bool]:
    """Whether work that is slow for another's sake, as a sink that hardly answers, may begin here: one at a time."""
    queue = os.environ.get("Q_CLUSTER_NAME", "")
    if not is_slow or queue not in settings.QUEUES:
        yield True
        return
    with _place(f"slow-{queue}", 1) as is_held:
        yield is_held


@contextmanager
def _place(name: str, count: int) -> Iterator[bool]:
    directory = data_dir() / "slots"
    directory.mkdir(exist_ok=True, mode=0o700)
    for number in range(count):
        with file_locks.held(directory / f"{name}-{number}") as place:
            if place is not None:
                yield True
                return
    yield False
