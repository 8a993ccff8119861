"""Threads that compute for long give way to those that somebody waits for, in the same process (P14, ADR 79).

The threads of a process share one interpreter. While one computes, each of the others waits for some milliseconds
whenever it has waited for something else, and a release is some hundred short steps that do. Priorities of threads do
not help: a thread of low priority keeps the interpreter from the others for longer still. So a task that computes for
long pauses now and then, while a brief one is running. A background task then computes for a ninth of the time, as a
background transfer does beside others; one that a client waits for, for a third.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

SLICE_S = 0.002
"""The computing time after which a task considers a pause."""
REST, AWAITED_REST = 8, 2
"""The pause, as a multiple of the computing time since the last one: of a background task, and of one that a client
waits for, too."""
LONGEST_REST_S = 0.25
LOOK_S = 0.016
"""How often a pause checks whether a brief task is still running."""
BRIEF_S = 0.3
"""The computing time after which a task is no longer brief, even if a client waits for it."""
BRIEF_FOR_S = 5.0
"""The same by the clock: then it waits for a sink or an engine, and nobody has to give way to it."""


@dataclass(slots=True)
class _Task:
    is_awaited: bool
    began: float
    """This and the next by the processor time of the thread."""
    slice_began: float


_mine = threading.local()
_brief: dict[int, float] = {}
"""The threads with a brief task that a client waits for, and when it began, by the monotonic clock."""


@contextmanager
def task(*, is_awaited: bool) -> Iterator[None]:
    """The block is a task of this thread: ``give_way`` may pause it. If a client waits for it, others give way to it
    while it is brief."""
    thread, now = threading.get_ident(), time.thread_time()
    _mine.task = _Task(is_awaited, now, now)
    if is_awaited:
        _brief[thread] = time.monotonic()
    try:
        yield
    finally:
        _brief.pop(thread, None)
        _mine.task = None


def give_way() -> None:
    """Pause this thread's task if it has computed for a while and a brief one is running. Call it for each of many
    items, and never while holding what others wait for, such as a transaction."""
    own: _Task | None = getattr(_mine, "task", None)
    if own is None:
        return
    now = time.thread_time()
    if now - own.slice_began < SLICE_S:
        return
    thread = threading.get_ident()
    if now - own.began > BRIEF_S:
        _brief.pop(thread, None)
    if thread not in _brief:
        rest = AWAITED_REST if own.is_awaited else REST
        _rest(min(rest * (now - own.slice_began), LONGEST_REST_S))
    own.slice_began = time.thread_time()


def rested_s() -> float:
    """The total duration of this thread's pauses so far."""
    return float(getattr(_mine, "rested_s", 0.0))


@contextmanager
def at_once() -> Iterator[None]:
    """Within the block, ``give_way`` does nothing: something else waits for it."""
    own, _mine.task = getattr(_mine, "task", None), None
    try:
        yield
    finally:
        _mine.task = own


def _rest(seconds: float) -> None:
    until = time.monotonic() + seconds
    while (left_s := until - time.monotonic()) > 0 and _is_brief_one_running():
        began = time.monotonic()
        time.sleep(min(left_s, LOOK_S))
        _mine.rested_s = rested_s() + time.monotonic() - began


def _is_brief_one_running() -> bool:
    earliest = time.monotonic() - BRIEF_FOR_S
    return any(began > earliest for began in list(_brief.values()))
