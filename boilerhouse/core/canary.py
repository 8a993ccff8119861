"""Whether a queue serves: a task per queue and period that touches a file, and which workers are busy.

A worker killed while it holds django-q2's queue wedges its cluster for good (measured), so the files are watched and
the cluster's process tree is restarted. Files, because the watcher must not depend on what it watches.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.utils import timezone

from boilerhouse.core.deployment import data_dir
from boilerhouse.core.models import QueueHealth
from boilerhouse.core.processes import current, pid_started


def _directory(supervisor: int | str) -> Path:
    path = data_dir() / "run" / str(supervisor)
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def sing(supervisor: str, queue: str) -> None:
    """Task: prove that ``queue`` of the supervisor with this pid serves."""
    current()
    (_directory(supervisor) / f"{queue}.canary").touch()
    QueueHealth.objects.update_or_create(name=queue, defaults={"served_at": timezone.now()})


def last_song(queue: str) -> float:
    """When the canary of our queue last sang, in Unix seconds; 0 if never."""
    path = _directory(os.getpid()) / f"{queue}.canary"
    return path.stat().st_mtime if path.exists() else 0.0


@contextmanager
def busy() -> Iterator[None]:
    """Within the block this worker is seen as busy by the supervisor that started it."""
    supervisor, queue = os.environ.get("BOILERHOUSE_SUPERVISOR"), os.environ.get("Q_CLUSTER_NAME")
    if not supervisor or not queue:
        yield
        return
    path = _directory(supervisor) / f"{queue}.busy.{os.getpid()}"
    path.touch()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def busy_workers(queue: str) -> int:
    """How many living workers of our queue are in a task."""
    count = 0
    for path in _directory(os.getpid()).glob(f"{queue}.busy.*"):
        if pid_started(int(path.suffix[1:])) is None:
            path.unlink(missing_ok=True)
        else:
            count += 1
    return count


def is_saturated(queue: str, workers: int) -> bool:
    """Whether a whole supervisor's worth of this node's workers of the queue are in a task: slow, not wedged."""
    busy = [path for path in (data_dir() / "run").glob(f"*/{queue}.busy.*") if pid_started(int(path.suffix[1:]))]
    return len(busy) >= workers


def clear() -> None:
    """Remove our files."""
    for path in _directory(os.getpid()).iterdir():
        path.unlink(missing_ok=True)
    _directory(os.getpid()).rmdir()
