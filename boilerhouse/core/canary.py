"""Whether a cluster serves: a task per period that touches a file, and which of its workers are busy.

A worker killed while it holds django-q2's queue wedges its cluster for good (measured), so the files are watched and
the cluster is restarted. Each cluster gets its canaries from its own pusher (``core.broker``), so no other cluster's
worker, here or on another machine, sings them; files, because the watcher must not depend on what it watches.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.db import DatabaseError, connection
from django.db.models.functions import Now
from django.utils import timezone
from django_q.signing import SignedPackage

from boilerhouse.core.deployment import data_dir
from boilerhouse.core.ids import uuid7
from boilerhouse.core.models import QueueHealth
from boilerhouse.core.processes import current, pid_started

EVERY_S = 4.0
TREE = "BOILERHOUSE_CLUSTER"
"""Names the process tree that a worker belongs to; ``run_worker`` sets it."""


def directory(tree: str) -> Path:
    path = data_dir() / "run" / tree
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def message(tree: str, queue: str) -> str:
    """A task for the cluster's own task queue, in django-q2's form: ``sing``."""
    task: dict[str, object] = {"id": str(uuid7()), "name": f"canary of {queue}", "func": "boilerhouse.core.canary.sing"}
    task |= {"args": (tree, queue), "kwargs": {}, "started": timezone.now(), "save": False}
    return str(SignedPackage.dumps(task))


def sing(tree: str, queue: str) -> None:
    """Task: prove that the cluster serves ``queue``, to its watcher first, to everybody when the database is there."""
    path = directory(tree) / "canary"
    path.touch()
    os.utime(path, (time.monotonic(), time.monotonic()))  # no step of a wall clock looks like silence
    try:
        current()
        if not QueueHealth.objects.filter(pk=queue).update(served_at=Now()):
            QueueHealth.objects.get_or_create(name=queue, defaults={"served_at": Now()})
    except DatabaseError:
        connection.close()


def last_song(tree: str) -> float | None:
    """When the cluster's canary last sang, by the monotonic clock; None if never."""
    try:
        return (data_dir() / "run" / tree / "canary").stat().st_mtime
    except FileNotFoundError:
        return None


@contextmanager
def busy() -> Iterator[None]:
    """Within the block this worker is seen as busy by the supervisor that started it."""
    tree, queue = os.environ.get(TREE), os.environ.get("Q_CLUSTER_NAME")
    if not tree or not queue:
        yield
        return
    path = directory(tree) / f"{queue}.busy.{os.getpid()}"
    path.touch()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def busy_workers(tree: str) -> set[int]:
    """The pids of the cluster's living workers that are in a task."""
    found = set()
    for path in (data_dir() / "run" / tree).glob("*.busy.*"):
        pid = int(path.suffix[1:])
        if pid_started(pid) is None:
            path.unlink(missing_ok=True)
        else:
            found.add(pid)
    return found


def is_saturated(queue: str, workers: int) -> bool:
    """Whether a whole supervisor's worth of this node's workers of the queue are in a task: slow, not wedged."""
    busy = [path for path in (data_dir() / "run").glob(f"*/{queue}.busy.*") if pid_started(int(path.suffix[1:]))]
    return len(busy) >= workers


def clear(tree: str) -> None:
    """Remove the tree's files."""
    shutil.rmtree(data_dir() / "run" / tree, ignore_errors=True)


def clear_dead() -> None:
    """Remove the files of trees whose supervisor has ended without doing it."""
    for path in (data_dir() / "run").glob("*"):
        pid = path.name.partition("-")[0]
        if not pid.isdigit() or pid_started(int(pid)) is None:
            shutil.rmtree(path, ignore_errors=True)
