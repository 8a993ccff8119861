"""Runs the web process with real-time priority: it answers in milliseconds and sleeps most of the time.

Starting containers keep all processors busy for a while, and an ordinary process that wakes up waits for its share of
them, whatever its nice value is (ADR 24). While the web process does not sleep most of the time, it has ordinary
priority, too (ADR 53).
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
"""The real-time priority: above every ordinary process, below other real-time processes."""


BUSY, CALM = 0.6, 0.4
"""Fractions of one processor. A process that exceeds the first becomes ordinary until it falls below the second."""

_always_ordinary: set[int] = set()
"""Thread ids of the kernel."""


def be_urgent() -> bool:
    """Give this thread, and those that it starts, real-time priority. Returns whether that succeeded.

    Not on a single processor, where a busy web process would starve everything else, and not without the permission:
    then the priority stays ordinary.
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
    """Give this thread, and the processes that it starts, ordinary priority permanently."""
    _always_ordinary.add(threading.get_native_id())
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


class Watch:
    """Gives a real-time process ordinary priority while it computes most of the time; call ``look`` regularly.

    A flooded process computes without end. With real-time priority, it would take a processor from the work that
    workers do for other tenants.
    """

    def __init__(self) -> None:
        self._may = os.sched_getscheduler(0) == os.SCHED_RR
        self._is_flooded = False
        self._at, self._ran = time.monotonic(), time.process_time()

    def look(self) -> None:
        """Decide by the processor time since the last look."""
        now, ran = time.monotonic(), time.process_time()
        share = (ran - self._ran) / max(now - self._at, 0.001)
        self._at, self._ran = now, ran
        self.judge(share)

    def judge(self, share: float) -> None:
        """Decide by ``share``, the fraction of a processor that this process uses."""
        if not self._may:
            return
        was_flooded, self._is_flooded = self._is_flooded, share > (CALM if self._is_flooded else BUSY)
        if self._is_flooded != was_flooded:
            log.info("ordinary priority" if self._is_flooded else "real-time priority", computes=round(share, 2))
        if self._is_flooded:  # each time: an ordinary thread may have raised its priority again
            _have_all(os.SCHED_OTHER, 0)
        elif was_flooded:
            _have_all(os.SCHED_RR, LOWEST)


def _have_all(policy: int, priority: int) -> None:
    """Set this priority for all threads of this process, except those that are always ordinary."""
    for thread in set(map(int, os.listdir("/proc/self/task"))) - _always_ordinary:
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.sched_setscheduler(thread, policy, os.sched_param(priority))


@contextmanager
def lowered(pid: int) -> Iterator[None]:
    """Within the block, give a child process of this thread ordinary priority; afterwards raise it again."""
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
    """Within the block, this thread has ordinary priority."""
    if os.sched_getscheduler(0) != os.SCHED_RR:
        yield
        return
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    try:
        yield
    finally:
        be_urgent()
