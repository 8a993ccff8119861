"""Requests of tenants that wait for something to be done, without a thread of their own.

How many wait is bounded for all of them: work that may be refused is refused by ``check_room`` before it begins, and
what must never be refused goes on and is answered at once (``patience``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from django.http import HttpResponse
from rest_framework.response import Response

from boilerhouse.api.base import ApiView
from boilerhouse.api.pagination import integer
from boilerhouse.api.schema import whole
from boilerhouse.process.budgets import Owner, waiters
from boilerhouse.web.waiting import Check, Waiting

MAX_TIMEOUT_MS = 600_000
TIMEOUT = whole("timeoutMs", 1, MAX_TIMEOUT_MS, "How long to wait, in milliseconds.")


def timeout_ms(request: Any, default: int) -> int:
    return integer(request, "timeoutMs", default, 1, MAX_TIMEOUT_MS)


@dataclass(frozen=True, slots=True)
class Awaited:
    """Work that a request has begun, and how that is answered."""

    key: Hashable
    check: Check
    """Which of such keys need not be waited for any longer."""
    settle: Callable[[], HttpResponse | None]
    """The answer; None while the work goes on. Raises the work's error."""
    until: float
    """Unix seconds."""
    owners: tuple[Owner, ...]
    """Whose places the request takes while it waits."""
    late: Callable[[], HttpResponse] | None = None
    """The answer at ``until``; without it ``settle`` has one then."""


class WaitingView(ApiView):
    # No docstring: the schema would take it for the description of operations without one.

    def answer(self, request: Any, begin: Callable[[], Awaited | Response]) -> HttpResponse:
        """Begin once, and answer when the work is settled or its time is over.

        Where there is nothing to wait for, ``begin`` returns the answer.
        """
        resumed = getattr(request._request, "resumed", None)
        awaited = begin() if resumed is None else resumed.state
        if not isinstance(awaited, Awaited):
            return awaited
        while (answer := awaited.settle()) is None:
            if awaited.late is not None and time.time() >= awaited.until:
                return awaited.late()
            waiting = _wait(request, awaited)
            if waiting is not None:
                return waiting
        return answer


def check_room(owners: tuple[Owner, ...]) -> None:
    """Raise TooManyWaiting or BudgetExceeded where too many requests of these wait already."""
    waiters.check(*owners)


def patience(until: float, owners: tuple[Owner, ...]) -> float:
    """``until``, or now where too many requests of these wait already: the work goes on, and is not waited for."""
    return until if waiters.has_room(*owners) else time.time()


def _wait(request: Any, awaited: Awaited) -> Waiting | None:
    """What to answer to give the thread back until the key is settled or the time is over.

    Without an event loop that would come back, it waits right here and returns None.
    """
    waiting = Waiting(awaited.key, awaited.check, awaited.until)
    waiting.state, waiting.owners = awaited, awaited.owners
    if hasattr(request._request, "resumed"):
        waiting.join()  # here: when the event loop comes to it, many others may have been let in
        return waiting
    waiting.block()
    return None
