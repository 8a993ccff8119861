"""Steps over claims: serves waiting ones, aborts those past their deadline, resumes those of dead processes."""

from __future__ import annotations

from datetime import timedelta

from boilerhouse.core import clock
from boilerhouse.process.steps import each
from pools.models import Container
from tenants import aborts, deadlines, wait_queue
from tenants.models import Assignment
from tenants.states import AssignmentState
from tenants.upkeep.orphans import ownerless, send_once

GRACE_S = 2
"""A waiting request aborts its claim itself at the deadline; this is for claims without one."""


def serve_waiters() -> int:
    """A safety net for the waiting requests' own matching: idle containers go to waiting claims."""
    waiting = Assignment.objects.filter(state=AssignmentState.PENDING, container_ref=None)
    return each(set(waiting.values_list("pool_id", flat=True)), _serve)


def _serve(pool_id: str) -> int:
    return wait_queue.match_waiters(pool_id) if Container.objects.idle().filter(pool_id=pool_id).exists() else 0


def abort_overdue_claims() -> int:
    """Abort pending claims past their deadline that no request waits for."""
    overdue = clock.now() - timedelta(seconds=GRACE_S)
    rows = Assignment.objects.filter(state=AssignmentState.PENDING, deadline__lt=overdue)
    return each(rows.select_related("pool"), lambda row: aborts.give_up(row.pk, *aborts.overdue_outcome(row)))


def resume_claims() -> int:
    """Requeue claims of dead processes."""
    rows = Assignment.objects.filter(state=AssignmentState.PENDING, container_ref__isnull=False)
    return each(ownerless(rows), _hand_on)


def _hand_on(row: Assignment) -> int:
    handed_on = send_once(row, "claim", "tenants.tasks.prepare", row.pk, row.generation)
    if handed_on:
        deadlines.stand_in_line(Assignment.objects.filter(pk=row.pk))
    return handed_on
