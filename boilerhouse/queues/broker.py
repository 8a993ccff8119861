"""django-q2's ORM broker; it wakes waiting workers when a message is committed (ADR 23), and workers limit how many
they take."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now
from django_q.brokers.orm import ORM
from django_q.models import OrmQ

from boilerhouse.core import clock, compiled
from boilerhouse.core.compiled import Compiled
from boilerhouse.core.deployment import node_id
from boilerhouse.queues import wakeup_pipes

NEARLY = timedelta(seconds=10)
"""Processes' readings of the database's clock differ by some milliseconds; a taken message is locked for longer."""
TAKEN_FOR = NEARLY + timedelta(seconds=20)
"""The initial lock of a message. Its worker may lose the database or die before the task starts."""
PAGE = 64
"""Messages read at once."""


@dataclass(frozen=True, slots=True)
class Message:
    id: int
    queue: str
    payload: str


def key_of(queue: str, node: str | None) -> str:
    """The key of the queue's messages for workers of one node; without a node, for all workers."""
    return f"{queue}@{node}" if node else queue


@compiled.cached
def _due(node: str, queues: tuple[str, ...]) -> Compiled:
    keys = [key_of(queue, of) for queue in queues for of in (None, node)]
    rows = OrmQ.objects.filter(key__in=keys, lock__lt=Now() + NEARLY)
    return compiled.selection(rows.order_by().values_list("pk")[:1])


class Broker(ORM):  # type: ignore[misc]
    delay_s = 0.0
    """The delay before workers may take new messages."""

    def enqueue(self, task: str) -> Any:
        """Enqueue the message; local workers are woken when the transaction commits."""
        at = clock.now()
        if self.delay_s:
            at += NEARLY + timedelta(seconds=self.delay_s)
        message_id = self.get_connection().create(key=self.list_key, payload=task, lock=at).pk
        queue, _, node = self.list_key.partition("@")
        if not self.delay_s and node in ("", node_id()):
            transaction.on_commit(partial(wakeup_pipes.notify, queue), robust=True)
        return message_id

    @classmethod
    def take(cls, free: Mapping[str, int]) -> tuple[list[Message], list[Message]]:
        """Take the oldest due messages, of each queue at most the given number; no other worker gets them.

        Includes messages for all nodes and for this one. Those of other nodes wait for a worker there. A message that
        is neither acknowledged nor kept becomes available again after about 20 seconds. The second list contains
        messages that were due too and were not taken, not necessarily all.
        """
        rows, room, last = cls.get_connection(), dict(free), 0
        messages: list[Message] = []
        passed: list[Message] = []
        due = clock.now() + NEARLY  # include a message that was enqueued this instant
        while room:
            queues = {key_of(queue, node): queue for queue in room for node in (None, node_id())}
            page = list(rows.filter(key__in=queues, lock__lt=due, pk__gt=last).order_by("pk")[:PAGE])
            for row in page:
                queue = queues[row.key]
                message = Message(row.pk, queue, row.payload)
                if queue not in room:
                    passed.append(message)
                    continue
                # If another worker was faster, no row is updated.
                if rows.filter(pk=row.pk, lock=row.lock).update(lock=clock.now() + TAKEN_FOR):
                    messages.append(message)
                    room[queue] -= 1
                    if not room[queue]:
                        del room[queue]
            if len(page) < PAGE:
                break
            last = page[-1].pk
        return messages, passed

    @classmethod
    def has_due(cls, queues: Collection[str]) -> bool:
        """Whether ``take`` would find a message of these queues."""
        return _due(node_id(), tuple(sorted(queues))).exists()

    @classmethod
    def next_due_s(cls, queues: Collection[str]) -> float | None:
        """The seconds until the next message of these queues that is delayed or locked now may be taken; None without
        one."""
        now = clock.now()
        keys = [key_of(queue, node) for queue in queues for node in (None, node_id())]
        rows = cls.get_connection().filter(key__in=keys, lock__gte=now + NEARLY).order_by("lock")
        lock = rows.values_list("lock", flat=True).first()
        return None if lock is None else (lock - NEARLY - now).total_seconds()

    @classmethod
    def drop(cls, taken: Collection[int], passed: Collection[int]) -> None:
        """Delete messages that were taken here, and others unless a worker has taken them meanwhile."""
        untaken = Q(pk__in=passed, lock__lt=clock.now() + NEARLY)
        cls.get_connection().filter(Q(pk__in=taken) | untaken).delete()

    @classmethod
    def keep(cls, queue: str, messages: Collection[int]) -> None:
        """Lock messages of running tasks for the queue's ``retry`` seconds from now."""
        until = clock.now() + timedelta(seconds=float(settings.QUEUES[queue]["retry"]))
        cls.get_connection().filter(pk__in=messages).update(lock=until)

    @classmethod
    def to(cls, queue: str, node: str | None, delay_s: float) -> Broker:
        """A broker for messages to workers of that node, or to all, available after ``delay_s`` seconds."""
        broker = cls(key_of(queue, node))
        broker.delay_s = delay_s
        return broker
