"""How long a pending claim may take: one that somebody waits for ends at its deadline, another when it stands still.

The deadline of the latter moves with whatever moves: its restore, or the line of restores that it stands in.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import QuerySet
from django.db.models.functions import Greatest

from boilerhouse.core import clock
from boilerhouse.process import stalling
from tenants.models import Assignment
from tenants.states import AssignmentState

IN_LINE = timedelta(hours=6)
"""A claim that has a container waits so long for a worker: those may be busy with restores of hours."""


def begin(assignment: Assignment) -> None:
    """Note on an (unsaved) assignment that it holds a container: from now on it may take its time."""
    if not assignment.waits:
        assignment.deadline = max(assignment.deadline, _still_until())


def stand_in_line(rows: QuerySet[Assignment]) -> int:
    """Give those of these claims that nobody waits for the time until a worker takes them up."""
    later = clock.now() + IN_LINE
    return rows.filter(waits=False, state=AssignmentState.PENDING).update(deadline=Greatest("deadline", later))


def take_up(assignment: Assignment) -> None:
    """A worker has the claim: it stands in no line any more."""
    if not assignment.waits:
        _move(assignment, _still_until())


def allow(assignment: Assignment, more: timedelta) -> None:
    """Let the claim do for so long what says nothing while it works, as a hook."""
    if not assignment.waits:
        _move(assignment, _still_until() + more)


@contextmanager
def moving(assignment: Assignment) -> Iterator[None]:
    """Within the block the deadline of a claim that nobody waits for moves with the work of this thread.

    Also of one that gets to be so meanwhile, by a second claim that joins it.
    """
    with stalling.reporting_to(lambda: _move(assignment, _still_until())):
        yield


def _still_until() -> datetime:
    return clock.now() + timedelta(seconds=int(settings.BOILERHOUSE_TRANSFER_STALL_S))


def _move(assignment: Assignment, until: datetime) -> None:
    now = clock.now()
    rows = Assignment.objects.filter(pk=assignment.pk, state=AssignmentState.PENDING, waits=False)
    if rows.filter(deadline__gt=now).update(deadline=until):
        assignment.waits, assignment.deadline = False, until
