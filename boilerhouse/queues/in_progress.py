"""Rows that threads of this process are working on.

A row names the process that works on it, so it is taken over when the process is dead. It does not name the thread: a
second message for the row must not start what another thread is doing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar
from uuid import UUID

PATIENCE_S = 1.0
"""A thread that has just marked the row as free may need a moment to leave it."""

P = ParamSpec("P")
T = TypeVar("T")
_rows: set[tuple[Callable[..., object], UUID]] = set()
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
