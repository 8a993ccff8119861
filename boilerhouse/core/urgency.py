"""The web process runs before everything else on the machine: it answers in milliseconds and sleeps most of the time.

Containers that start keep all processors busy for a while, and an ordinary process that wakes up waits for its share of
them, whatever its nice value says (ADR 24).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from django.conf import settings

log = structlog.get_logger("boilerhouse.web")

LOWEST = 1
"""Of the real-time priorities: before every ordinary process, after whatever else is urgent here."""


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
    """Have this thread, and the processes that it starts, run like everybody else's."""
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


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
    be_ordinary()
    try:
        yield
    finally:
        be_urgent()
