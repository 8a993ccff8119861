"""Rows of dead processes, and how not to send two messages for the same one."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet

from boilerhouse.core import clock, nodes
from boilerhouse.core.cooldown import Cooldown
from boilerhouse.process import processes
from boilerhouse.queues.tasks import enqueue
from pools.nodes import node_of
from tenants.models import Assignment

ORPHANED_AFTER = timedelta(seconds=3)
"""The message of a row without an owner may still be on the way."""


def send(queue: str, function: str, pk: UUID, *, node: str | None) -> bool:
    with transaction.atomic():
        enqueue(queue, function, pk, node=node)
    return True


def ownerless(rows: QuerySet[Assignment]) -> list[Assignment]:
    old = clock.now() - ORPHANED_AFTER
    stale = list(rows.select_related("container").filter(state_changed_at__lt=old))
    living = processes.living() if stale else set()
    return [row for row in stale if row.owner not in living]


tried = Cooldown(10)


def send_once(row: Assignment, queue: str, function: str, *arguments: object) -> int:
    """Once per orphan and owner, to its node. An unreachable node already has the message, or gets one when it is
    back."""
    node = node_of(row)
    if nodes.is_silent(node.id) or not tried.is_new((row.pk, row.owner, row.attempt, row.next_attempt_at)):
        return 0
    node.queue.hand_on(queue, function, *arguments)
    return 1
