"""Runs the steps of loops that must continue whatever one step raises.

A failure is logged once, counted, and stored in a row for people. The step is retried in the next round, and the other
steps run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import structlog
from django.db import DatabaseError
from django.db.models.functions import Now

from boilerhouse.core.errors import BoilerhouseError
from boilerhouse.core.models import FailingStep
from boilerhouse.process.outage import DATABASE_LOST
from boilerhouse.telemetry.instruments import STEP_FAILURES

log = structlog.get_logger(__name__)
T = TypeVar("T")

EXPECTED = (BoilerhouseError, DatabaseError, OSError)
"""Errors of the engine, the database and sinks while they are unavailable: reported only if they persist."""
SHOWN_AFTER = 3
"""The number of consecutive failures after which an expected error is reported; any other error is a defect and
reported immediately."""
FAR_PAST, FAR_FUTURE = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)


class Steps:
    """Runs the steps of one process and remembers which of them fail."""

    def __init__(self, *, shows: bool = True) -> None:
        self._shows = shows
        """Whether rows are written. A watcher that must not depend on the database only logs and counts."""
        self._failures: dict[str, tuple[str, int]] = {}
        """Step → the class of its last failures and their number in a row."""
        self._names: set[str] | None = None
        self._lock = threading.Lock()

    def attempt(self, name: str, work: Callable[[], object]) -> bool:
        """Whether ``work`` succeeded. Exceptions are logged, counted and reported, never raised."""
        try:
            work()
        except Exception as error:
            self._failed(name, error)
            return False
        self._succeeded(name)
        return True

    def _failed(self, name: str, error: Exception) -> None:
        kind = type(error).__name__
        STEP_FAILURES.labels(name).inc()
        with self._lock:
            last, count = self._failures.get(name, ("", 0))
            count = count + 1 if last == kind else 1
            self._failures[name] = kind, count
        if count == 1:
            log.error("step failed", step=name, error=kind, where=place_of(error), detail=str(error)[:200])
        if self._shows and count == (SHOWN_AFTER if isinstance(error, EXPECTED) else 1):
            self._show(name, kind, error)

    def _show(self, name: str, kind: str, error: Exception) -> None:
        detail = error.detail if isinstance(error, BoilerhouseError) else place_of(error)
        values = {"error": kind, "detail": detail[:500], "since": Now()}
        try:
            FailingStep.objects.update_or_create(name=name, defaults=values)
            self._failing().add(name)
        except DatabaseError as lost:  # a database outage is visible without this
            with self._lock:
                self._failures.pop(name, None)
            log.warning("failing step not recorded", step=name, error=type(lost).__name__)

    def _succeeded(self, name: str) -> None:
        with self._lock:
            was = self._failures.pop(name, None)
        try:
            if self._shows and name in self._failing():
                FailingStep.objects.filter(pk=name).delete()
                self._failing().discard(name)
        except DatabaseError:
            return  # the next success deletes it
        if was:
            log.info("step recovered", step=name, failed=was[1])

    def _failing(self) -> set[str]:
        """The failing steps with a row, including those of an earlier process."""
        if self._names is None:
            self._names = set(FailingStep.objects.values_list("name", flat=True))
        return self._names


steps = Steps()
"""Failing steps of this process."""


def each(items: Iterable[T], work: Callable[[T], Any], ends: tuple[type[Exception], ...] = ()) -> int:
    """The sum of ``work`` over all items. A failing item does not stop the others.

    Raises the first failure after all items, or immediately if the database is unavailable or the failure is one of
    ``ends``, which concern all items.
    """
    count, failure = 0, None
    for item in items:
        try:
            count += int(work(item))
        except DATABASE_LOST:
            raise
        except Exception as error:
            if isinstance(error, ends):
                raise
            failure = failure or error
    if failure is not None:
        raise failure
    return count


def place_of(error: BaseException) -> str:
    """The file and line that raised it."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""


def later(at: datetime, milliseconds: float) -> datetime:
    """``at`` plus the duration, at most in the year 9999: a row may contain any number."""
    try:
        return at + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return FAR_FUTURE


def earlier(at: datetime, milliseconds: float) -> datetime:
    """``at`` minus the duration, at least in the year 1970."""
    try:
        return max(at - timedelta(milliseconds=milliseconds), FAR_PAST)
    except OverflowError:
        return FAR_PAST
