"""Deadlines of pending claims: with a waiting client, a fixed deadline; otherwise a limit on the time without progress.

The latter deadline is extended by any progress: of its restore, or of the restores that it waits for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import QuerySet
from django.db.models.functions import Greatest

from boilerhouse.core import clock
from boilerhouse.process import stalls
from tenants.models import Assignment
from tenants.states import AssignmentState

IN_LINE = timedelta(hours=6)
"""How long a claim with a container waits for a worker: workers may be busy with restores for hours."""


def begin(assignment: Assignment) -> None:
    """Record on an (unsaved) assignment that it has a container: its deadline may now be extended."""
    if not assignment.waits:
        assignment.deadline = max(assignment.deadline, _still_until())


def stand_in_line(rows: QuerySet[Assignment]) -> int:
    """Extend the deadline of those of these claims that no client waits for until a worker starts them."""
    later = clock.now() + IN_LINE
    return rows.filter(waits=False, state=AssignmentState.PENDING).update(deadline=Greatest("deadline", later))


def take_up(assignment: Assignment) -> None:
    """Record that a worker has started the claim, which therefore no longer waits in a queue."""
    if not assignment.waits:
        _move(assignment, _still_until())


def allow(assignment: Assignment, more: timedelta) -> None:
    """Extend the deadline by the duration of a step without progress reports, such as a hook."""
    if not assignment.waits:
        _move(assignment, _still_until() + more)


@contextmanager
def moving(assignment: Assignment) -> Iterator[None]:
    """Within the block, progress of this thread's work extends the deadline of a claim that no client waits for.

    Also of a claim that becomes one meanwhile, when a second claim joins it.
    """
    with stalls.reporting_to(lambda: _move(assignment, _still_until())):
        yield


def _still_until() -> datetime:
    return clock.now() + timedelta(seconds=int(settings.BOILERHOUSE_TRANSFER_STALL_S))


def _move(assignment: Assignment, until: datetime) -> None:
    now = clock.now()
    rows = Assignment.objects.filter(pk=assignment.pk, state=AssignmentState.PENDING, waits=False)
    if rows.filter(deadline__gt=now).update(deadline=until):
        assignment.waits, assignment.deadline = False, until
