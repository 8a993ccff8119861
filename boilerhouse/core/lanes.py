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
    directory = data_dir() / "slots"
    directory.mkdir(exist_ok=True, mode=0o700)
    for number in range(int(settings.QUEUES[queue]["workers"]) - 1):
        with file_locks.held(directory / f"large-{queue}-{number}") as place:
            if place is not None:
                yield True
                return
    yield False
