"""Requests that wait for work on a tenant, without a thread of their own.

Their number is limited in total. Work that may be refused is refused by ``check_room`` before it begins; work that must
not be refused continues and is answered immediately (``patience``).
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
    """Work that a request has started, and how to answer it."""

    key: Hashable
    check: Check
    """Which of these keys no longer need to wait."""
    settle: Callable[[], HttpResponse | None]
    """The response; None while the work continues. Raises the work's error."""
    until: float
    """Unix seconds."""
    owners: tuple[Owner, ...]
    """The owners whose budget the waiting request counts against."""
    late: Callable[[], HttpResponse] | None = None
    """The response at ``until``; without it, ``settle`` returns one then."""


class WaitingView(ApiView):
    # No docstring, because the schema would use it for operations without one.

    def answer(self, request: Any, begin: Callable[[], Awaited | Response]) -> HttpResponse:
        """Start the work once, and answer when it is settled or the time is over.

        If there is nothing to wait for, ``begin`` returns the response.
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
    """Raise TooManyWaiting or BudgetExceeded if too many requests of these owners are waiting."""
    waiters.check(*owners)


def patience(until: float, owners: tuple[Owner, ...]) -> float:
    """``until``, or now if too many requests of these owners are waiting: the work continues without a waiting
    request."""
    return until if waiters.has_room(*owners) else time.time()


def _wait(request: Any, awaited: Awaited) -> Waiting | None:
    """The response that frees the thread until the key is settled or the time is over.

    Without an event loop that would resume the request, it waits here and returns None.
    """
    waiting = Waiting(awaited.key, awaited.check, awaited.until)
    waiting.state, waiting.owners = awaited, awaited.owners
    if hasattr(request._request, "resumed"):
        waiting.join()  # count it here, because the event loop may admit many others first
        return waiting
    waiting.block()
    return None
