"""A query of a sink ends at its deadline, whatever its server sends until then.

A client's timeouts count from the last byte, so a server that sends one from time to time would hold its caller
forever. Here the connection is closed at the deadline of the whole query, and the client fails as for a broken
connection.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from syncing.errors import SinkStumbled

ROUGHLY_S = 0.05
"""Most queries are answered long before; this is how often overdue ones are looked for, many at once."""
_local = threading.local()


class _Question:
    """A thread's query, its deadline and its connections."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.until = seconds, time.monotonic() + seconds
        self.is_over = self.is_answered = False
        self._connections: list[int] = []
        self._changing = threading.Lock()

    def use(self, connection: socket.socket) -> None:
        """Close the connection at the deadline. Raises TimeoutError if that has passed."""
        own = os.dup(connection.fileno())  # the client's may be wrapped, closed, or kept
        with self._changing:
            if not self.is_over:
                self._connections.append(own)
                return
        os.close(own)
        raise TimeoutError

    def end(self) -> None:
        """Close open connections; does nothing if the answer was first."""
        with self._changing:
            self.is_over = not self.is_answered
            for item in self._connections if self.is_over else ():
                with contextlib.suppress(OSError), socket.socket(fileno=os.dup(item)) as connection:
                    connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with self._changing:
            self.is_answered = True
            for connection in self._connections:
                os.close(connection)
            self._connections.clear()


class _Clock:
    """Ends overdue queries: one thread per process."""

    def __init__(self) -> None:
        self._line: list[tuple[float, int, _Question]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._pid = 0

    def watch(self, question: _Question) -> None:
        with self._changed:
            if self._pid != os.getpid():  # threads do not survive a fork
                self._pid = os.getpid()
                self._line.clear()
                threading.Thread(target=self._run, name="deadlines", daemon=True).start()
            heapq.heappush(self._line, (question.until, next(self._numbers), question))
            if self._line[0][2] is question:
                self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                remaining_s = self._line[0][0] - time.monotonic() if self._line else None
                if remaining_s is None or remaining_s > 0:
                    self._changed.wait(None if remaining_s is None else max(remaining_s, ROUGHLY_S))
                    continue
                question = heapq.heappop(self._line)[2]
            question.end()


_clock = _Clock()
os.register_at_fork(after_in_child=lambda: globals().update(_clock=_Clock()))  # the lock may be held by a lost thread


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """This thread's query in the block ends after this many seconds, or with an outer block if that is earlier.

    Raises SinkStumbled instead of its result then.
    """
    around: _Question | None = getattr(_local, "question", None)
    if around is not None:
        yield
        return
    question = _local.question = _Question(seconds)
    _clock.watch(question)
    try:
        yield
    except Exception as error:
        if question.is_over:
            raise _late(question) from error
        raise
    finally:
        _local.question = None
        question.close()


def check() -> None:
    """Raise SinkStumbled if this thread's query is overdue."""
    question: _Question | None = getattr(_local, "question", None)
    if question is not None and time.monotonic() > question.until:
        raise _late(question)


def _late(question: _Question) -> SinkStumbled:
    return SinkStumbled(f"The sink has not answered within {question.seconds:g} s.")


def use(connection: socket.socket) -> None:
    """Close the connection at the deadline of this thread's query. Raises TimeoutError if that has passed."""
    question: _Question | None = getattr(_local, "question", None)
    if question is not None:
        question.use(connection)


def left_of(timeout: Any) -> Any:
    """A client's timeout in seconds, or the rest of this thread's query if that is less."""
    question: _Question | None = getattr(_local, "question", None)
    if question is None:
        return timeout
    remaining_s = max(0.01, question.until - time.monotonic())
    return min(timeout, remaining_s) if isinstance(timeout, int | float) else remaining_s
