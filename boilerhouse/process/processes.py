"""Liveness of processes: each keeps a heartbeat row, and operations name it as their owner."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import structlog
from django.db import close_old_connections, connection, transaction
from django.db.models.functions import Now

from boilerhouse.core import clock, compiled, deployment, nodes
from boilerhouse.core.compiled import Compiled
from boilerhouse.core.ids import uuid7
from boilerhouse.core.models import Process
from boilerhouse.telemetry.instruments import STEP_FAILURES

log = structlog.get_logger(__name__)

HEARTBEAT_S = 2.0
MEASURE_EVERY = 10
"""Heartbeats between two readings of the database's clock."""
DEAD_AFTER_S = 8.0

_current: tuple[int, uuid.UUID] | None = None
_written: uuid.UUID | None = None
"""The id whose row is known to be committed. Before that, a rollback may have removed it."""
_heartbeat: tuple[int, threading.Thread, threading.Event] | None = None
_beaten = 0.0
"""When the last heartbeat stored in the database was started, by the monotonic clock."""
_kind: str = Process.Kind.COMMAND
_lock = threading.Lock()
_beat_hooks: list[Callable[[], None]] = []


@cache
def pid_space() -> str:
    """Host name and pid namespace. A pid is valid only there, with the same boot id.

    Other machines may have the same values: a namespace's number is the same on each machine for its first processes.
    """
    return f"{socket.gethostname()[:40]} {os.readlink('/proc/self/ns/pid')}"


@cache
def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def pid_started(pid: int) -> int | None:
    """Start time of ``pid`` in clock ticks since boot; None if it has ended or is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def describe(kind: str) -> None:
    """Set the kind of this process and of the workers it forks; call it once at the start."""
    global _kind
    _kind = kind


def at_each_beat(hook: Callable[[], None]) -> Callable[[], None]:
    """Have ``hook`` called after each heartbeat that the database took, on the heartbeat's thread."""
    _beat_hooks.append(hook)
    return hook


def current() -> uuid.UUID:
    """The id of this process's row. Created on first use and after a fork; a thread keeps it alive.

    The row exists when the caller's transaction commits, even if an earlier transaction was rolled back.
    """
    mine, pid = _current, os.getpid()
    if mine is None or mine[0] != pid:
        mine = _begin(pid)
    if _written != mine[1]:
        _write(mine[1], pid)
    return mine[1]


def _begin(pid: int) -> tuple[int, uuid.UUID]:
    global _current, _heartbeat, _beaten
    with _lock:
        if _current is None or _current[0] != pid:
            _beaten = time.monotonic()
            _current = (pid, uuid7())
            stop = threading.Event()
            thread = threading.Thread(target=_beat, args=(_current[1], stop), name="heartbeat", daemon=True)
            _heartbeat = (pid, thread, stop)
            thread.start()
        return _current


def _write(process_id: uuid.UUID, pid: int) -> None:
    values: dict[str, Any] = {
        "kind": _kind,
        "node_id": deployment.node_id(),
        "pid_space": pid_space(),
        "boot_id": boot_id(),
    }
    values |= {"pid": pid, "pid_started": pid_started(pid) or 0, "started_at": Now(), "heartbeat_at": Now()}
    deployment.register_node()
    Process.objects.get_or_create(pk=process_id, defaults=values)

    def committed() -> None:
        global _written
        _written = process_id

    transaction.on_commit(committed)


@compiled.cached
def _heartbeat_of(process_id: uuid.UUID) -> Compiled:
    return compiled.update(Process.objects.filter(pk=process_id), heartbeat_at=Now())


def _beat(process_id: uuid.UUID, stop: threading.Event) -> None:
    global _written, _beaten
    periodic_saves = 0
    try:
        while not stop.wait(HEARTBEAT_S):
            try:
                close_old_connections()
                began = time.monotonic()
                if _heartbeat_of(process_id).run():
                    _beaten = began
                    for hook in _beat_hooks:
                        hook()
                else:
                    _written = None  # not committed yet, or rolled back: the next use writes it again
                if _kind == Process.Kind.WORKER:
                    nodes.beat()
                if (periodic_saves := periodic_saves + 1) % MEASURE_EVERY == 0:
                    clock.measure()
            except Exception as error:  # the database may be unavailable; the next heartbeat tries again
                STEP_FAILURES.labels("heartbeat").inc()
                log.warning("heartbeat failed", error=type(error).__name__)
                with contextlib.suppress(Exception):
                    connection.close()
    finally:
        connection.close()


def stop_heartbeat(*, wait: bool = True) -> None:
    """Stop the heartbeat; ``current()`` would start a new one. With ``wait``, no thread or connection of it is left."""
    global _current, _heartbeat
    with _lock:
        beating, _current, _heartbeat = _heartbeat, None, None
    if beating and beating[0] == os.getpid():
        beating[2].set()
        if wait:
            beating[1].join()


def leave() -> None:
    """Delete this process's row, so that what it owned is taken over immediately."""
    mine = _current
    stop_heartbeat()
    if mine and mine[0] == os.getpid():
        with contextlib.suppress(Exception):
            Process.objects.filter(pk=mine[1]).delete()


def living() -> set[uuid.UUID]:
    """Ids of all living processes: their heartbeat is recent by the database's clock, and their pid exists, if it can
    be checked."""
    fresh = Process.objects.filter(heartbeat_at__gte=Now() - timedelta(seconds=DEAD_AFTER_S))
    return {process.pk for process in fresh if not _is_gone(process)}


def all_share_wakeups() -> bool:
    """Whether every living process has this data directory on this machine, so that wake-up pipes reach them all."""
    fresh = Process.objects.filter(heartbeat_at__gte=Now() - timedelta(seconds=DEAD_AFTER_S))
    return not fresh.exclude(node=deployment.node_id(), boot_id=boot_id()).exists()


def _is_gone(process: Process) -> bool:
    """Whether it ran in this pid namespace of this kernel and has ended. For other processes only the heartbeat is
    known."""
    is_here = (process.pid_space, process.boot_id) == (pid_space(), boot_id())
    return is_here and pid_started(process.pid) != process.pid_started


def unconfirmed_s() -> float:
    """Seconds since the database accepted a heartbeat of this process; others treat it as dead after ``DEAD_AFTER_S``.

    0 if the process has no row, because nothing names it as an owner.
    """
    return time.monotonic() - _beaten if _current and _current[0] == os.getpid() else 0.0


def forget_dead() -> int:
    """Delete the rows of processes that have been dead for an hour. Returns how many."""
    dead = Process.objects.filter(heartbeat_at__lt=Now() - timedelta(hours=1))
    return dead.delete()[0]
