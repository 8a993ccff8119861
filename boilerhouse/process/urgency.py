"""The web process runs before everything else on the machine: it answers in milliseconds and sleeps most of the time.

Containers that start keep all processors busy for a while, and an ordinary process that wakes up waits for its share of
them, whatever its nice value says (ADR 24). While it does not sleep most of the time, it is ordinary, too (ADR 53).
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from django.conf import settings

log = structlog.get_logger("boilerhouse.web")

LOWEST = 1
"""Of the real-time priorities: before every ordinary process, after whatever else is urgent here."""


BUSY, CALM = 0.6, 0.4
"""Of one processor. A process that takes more than the first is ordinary until it takes less than the second."""

_always_ordinary: set[int] = set()
"""Threads, by the kernel's number."""


def be_urgent() -> bool:
    """Have this thread, and those that it starts, run before ordinary processes; returns whether they do.

    Not on a single processor, where a busy web process would keep everything else from running, and not where the
    system does not permit it: then all goes on as before.
    """
    if not settings.BOILERHOUSE_WEB_REALTIME or len(os.sched_getaffinity(0)) < 2:
        return False
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(LOWEST))
    except OSError as error:
        log.info("no real-time priority", detail=str(error))
        return False
    return True


def be_ordinary() -> None:
    """Have this thread, and the processes that it starts, run like everybody else's for good."""
    _always_ordinary.add(threading.get_native_id())
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


class Watch:
    """Has an urgent process be ordinary while it computes most of the time; somebody has it ``look`` now and then.

    A process that is flooded computes without end. Were it urgent meanwhile, all that workers do for other tenants
    would have a processor less.
    """

    def __init__(self) -> None:
        self._may = os.sched_getscheduler(0) == os.SCHED_RR
        self._is_flooded = False
        self._at, self._ran = time.monotonic(), time.process_time()

    def look(self) -> None:
        """Judge by what this process has computed since the last look."""
        now, ran = time.monotonic(), time.process_time()
        share = (ran - self._ran) / max(now - self._at, 0.001)
        self._at, self._ran = now, ran
        self.judge(share)

    def judge(self, share: float) -> None:
        """Judge by ``share`` of a processor that this process takes."""
        if not self._may:
            return
        was_flooded, self._is_flooded = self._is_flooded, share > (CALM if self._is_flooded else BUSY)
        if self._is_flooded != was_flooded:
            log.info("ordinary priority" if self._is_flooded else "real-time priority", computes=round(share, 2))
        if self._is_flooded:  # each time: a thread that was ordinary for a while may have made itself urgent again
            _have_all(os.SCHED_OTHER, 0)
        elif was_flooded:
            _have_all(os.SCHED_RR, LOWEST)


def _have_all(policy: int, priority: int) -> None:
    """Have all threads of this process run so that are not ordinary anyway."""
    for thread in set(map(int, os.listdir("/proc/self/task"))) - _always_ordinary:
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.sched_setscheduler(thread, policy, os.sched_param(priority))


@contextmanager
def lowered(pid: int) -> Iterator[None]:
    """Have a process that this thread started run like everybody else's in the block, and as urgent as this again."""
    policy = os.sched_getscheduler(0)
    if policy == os.SCHED_OTHER:
        yield
        return
    with contextlib.suppress(ProcessLookupError):
        os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.sched_setscheduler(pid, policy, os.sched_getparam(0))


@contextmanager
def ordinary() -> Iterator[None]:
    """What this thread computes in it waits for its share of a processor like everybody else."""
    if os.sched_getscheduler(0) != os.SCHED_RR:
        yield
        return
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    try:
        yield
    finally:
        be_urgent()
