"""One transaction for a whole request: if its answer is an error, nothing has changed (P12, ADR 67).

Services write in ``recording()`` blocks, each of which would commit by itself. Within ``all_or_nothing()``, they are
parts of one transaction. It begins with the first write, so that what was computed or asked of the engine before holds
no lock, and it commits when the answer is ready to be sent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import structlog
from django.db import connection

from boilerhouse.core import events

log = structlog.get_logger(__name__)

_WRITES = re.compile(r"\s*(INSERT|UPDATE|DELETE|REPLACE|MERGE)\b", re.IGNORECASE)


class WriteOutside(RuntimeError):
    """A service wrote in a transaction of its own, which would remain if the answer failed. Use ``recording()``."""


class _Transaction:
    """Begins with the first write of its block, however it is made."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack, self._depth, self._has_begun = stack, _depth(), False

    def begin(self) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._stack.enter_context(events.outermost())

    def look(self, execute: Callable[..., Any], sql: Any, parameters: Any, many: bool, context: Any) -> Any:
        """Called for each statement of the block."""
        if not self._has_begun and _WRITES.match(str(sql)):
            if _depth() > self._depth:
                raise WriteOutside(str(sql)[:80])
            self.begin()
        return execute(sql, parameters, many, context)


def _depth() -> int:
    """How many transactions and savepoints are open."""
    return int(connection.in_atomic_block) + len(connection.savepoint_ids)


@contextmanager
def all_or_nothing() -> Iterator[None]:
    """What the block writes is committed at its end; if it raises, nothing has changed. Joins an outer transaction.

    Raises DatabaseBusy at the first write if others write for too long.
    """
    if events.is_recording():
        with events.recording():
            yield
        return
    with events.collecting_effects(), ExitStack() as stack:
        whole = _Transaction(stack)
        stack.enter_context(connection.execute_wrapper(whole.look))
        stack.enter_context(events.beginning_by(whole.begin))
        yield
