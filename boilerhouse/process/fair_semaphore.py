"""A fair semaphore for computing threads: the first to arrive continues, the others wait.

Threads share one processor (the interpreter's lock). Four threads that alternate every few milliseconds all finish
late; one after the other, the first finishes after a quarter of that time, and none finishes later (ADR 22). A thread
that waits for something else (a sink, the engine) yields its slot with ``aside``. A slot is advisory, not a lock: after
``patience_s`` a thread continues without one, so a stuck thread does not block the others.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE_S = 0.1


class _Turn:
    __slots__ = ("is_held", "number", "of")

    def __init__(self, of: FairSemaphore, number: int) -> None:
        self.of, self.number, self.is_held = of, number, False


_mine = threading.local()


class FairSemaphore:
    def __init__(self, places: int = 1, patience_s: float = PATIENCE_S) -> None:
        """``places``: the number of slots."""
        self._patience_s = patience_s
        self._numbers = itertools.count()
        self._changing = threading.Lock()
        self._free = places
        self._line: list[tuple[int, threading.Event]] = []

    @contextmanager
    def turn(self) -> Iterator[None]:
        """The block has a slot, or has waited ``patience_s`` for one."""
        turn = _mine.turn = _Turn(self, next(self._numbers))
        self._take(turn)
        try:
            yield
        finally:
            _mine.turn = None
            self._give(turn)

    def _take(self, turn: _Turn) -> None:
        with self._changing:
            if self._free:
                self._free -= 1
                turn.is_held = True
                return
            come = threading.Event()
            heapq.heappush(self._line, (turn.number, come))
        come.wait(self._patience_s)
        with self._changing:
            turn.is_held = come.is_set()
            if not turn.is_held:
                self._line.remove((turn.number, come))
                heapq.heapify(self._line)

    def _give(self, turn: _Turn) -> None:
        if not turn.is_held:
            return
        turn.is_held = False
        with self._changing:
            if self._line:
                heapq.heappop(self._line)[1].set()
            else:
                self._free += 1


@contextmanager
def yield_slot() -> Iterator[None]:
    """Yield this thread's slot while it waits, and take it again before later arrivals."""
    turn: _Turn | None = getattr(_mine, "turn", None)
    if turn is None:
        yield
        return
    turn.of._give(turn)
    try:
        yield
    finally:
        turn.of._take(turn)
