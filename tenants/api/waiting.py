"""Requests of tenants that wait for something to be done."""

from __future__ import annotations

import time
from typing import Any

from boilerhouse.core.api.pagination import integer
from boilerhouse.core.api.schema import whole
from boilerhouse.core.budgets import Owner, waiters
from boilerhouse.core.waiting import Waiting

MAX_TIMEOUT_MS = 600_000
TIMEOUT = whole("timeoutMs", 1, MAX_TIMEOUT_MS, "How long to wait.")


def timeout_ms(request: Any, default: int) -> int:
    return integer(request, "timeoutMs", default, 1, MAX_TIMEOUT_MS)


def patience(until: float, owners: tuple[Owner, ...]) -> float:
    """``until``, or now where too many requests of these wait already: the work goes on, and is not waited for."""
    return until if waiters.has_room(*owners) else time.time()


def wait(
    request: Any, key: Any, check: Any, until: float, state: Any, owners: tuple[Owner, ...] = ()
) -> Waiting | None:
    """What to answer to give the thread back until ``key`` is settled or ``until`` has passed.

    Without an event loop that would come back, it waits right here and returns None.
    """
    waiting = Waiting(key, check, until)
    waiting.state, waiting.owners = state, owners
    if hasattr(request._request, "resumed"):
        waiting.join()  # here: when the event loop comes to it, many others may have been let in
        return waiting
    waiting.block()
    return None
