"""Rows that threads of this process are working on.

A row names the process that works on it, so it is taken over when the process is dead. It does not name the thread: a
second message for the row must not start what another thread is doing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar
from uuid import UUID

PATIENCE_S = 1.0
"""A thread that has just marked the row as free may need a moment to leave it."""

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R", bound=Hashable)
Work = tuple[Callable[..., object], Hashable]
_rows: set[Work] = set()
_next: set[Work] = set()
"""Work that a thread waits to do on a row as soon as another has done it."""
_left = threading.Condition()


def alone(work: Callable[Concatenate[UUID, P], T]) -> Callable[..., T | None]:
    """Work on the row that the first argument names, unless another thread of this process does the same: then None.

    Other work on the row is not excluded: an aborted claim is released while its restore is still running.
    """

    @wraps(work)
    def run(row: UUID, *args: P.args, **kwargs: P.kwargs) -> T | None:
        with _left:
            if not _left.wait_for(lambda: (work, row) not in _rows, PATIENCE_S):
                return None
            _rows.add((work, row))
        try:
            return work(row, *args, **kwargs)
        finally:
            with _left:
                _rows.discard((work, row))
                _left.notify_all()

    return run


def joined(work: Callable[Concatenate[R, P], T]) -> Callable[..., T | None]:
    """Work on the row that the first argument names; calls in other threads of this process join.

    While the work runs, the next call waits and then works itself, so it sees what was committed before it was called.
    All calls while one waits return None at once: the waiting one has not begun, so it sees what they would see. Call
    it outside transactions: the work that it waits for may need the transaction's locks.
    """

    @wraps(work)
    def run(row: R, *args: P.args, **kwargs: P.kwargs) -> T | None:
        key = work, row
        with _left:
            if key in _next:
                return None
            if key in _rows:
                _next.add(key)
                _left.wait_for(lambda: key not in _rows)
                _next.discard(key)
            _rows.add(key)
        try:
            return work(row, *args, **kwargs)
        finally:
            with _left:
                _rows.discard(key)
                _left.notify_all()

    return run
