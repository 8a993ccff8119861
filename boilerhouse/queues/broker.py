"""django-q2's ORM broker; who waits is woken when a message is committed (ADR 23), and says how many it wants."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from django.conf import settings
from django.db import transaction
from django_q.brokers.orm import ORM

from boilerhouse.core import clock
from boilerhouse.core.deployment import node_id
from boilerhouse.queues import bells

NEARLY = timedelta(seconds=10)
"""Two processes know the database's clock some milliseconds apart; a message that is taken is locked for longer."""
TAKEN_FOR = NEARLY + timedelta(seconds=20)
"""How long a message is locked at first. Whoever took it may lose the database or die before its task begins."""
PAGE = 64
"""Messages that are read at once."""


@dataclass(frozen=True, slots=True)
class Message:
    id: int
    queue: str
    payload: str


def key_of(queue: str, node: str | None) -> str:
    """What the messages of the queue are kept under that are for workers of one node; without one, for everybody's."""
    return f"{queue}@{node}" if node else queue


class Broker(ORM):  # type: ignore[misc]
    delay_s = 0.0
    """How long what is put down is left alone first."""

    def enqueue(self, task: str) -> Any:
        """Put the message down; whoever waits for it here is woken when the transaction commits."""
        at = clock.now()
        if self.delay_s:
            at += NEARLY + timedelta(seconds=self.delay_s)
        made = self.get_connection().create(key=self.list_key, payload=task, lock=at).pk
        queue, _, node = self.list_key.partition("@")
        if not self.delay_s and node in ("", node_id()):
            transaction.on_commit(partial(bells.ring, queue), robust=True)
        return made

    @classmethod
    def take(cls, wanted: Mapping[str, int]) -> list[Message]:
        """The oldest messages that are due, of each queue at most so many as are wanted of it; nobody else gets them.

        They are everybody's and this node's. Those of other nodes wait for a worker there.

        A message that is neither acknowledged nor kept comes again after some 20 seconds.
        """
        rows, left, taken, last = cls.get_connection(), dict(wanted), [], 0
        due = clock.now() + NEARLY  # a message that was put down this instant is not left for the next look
        while left:
            queues = {key_of(queue, node): queue for queue in left for node in (None, node_id())}
            page = list(rows.filter(key__in=queues, lock__lt=due, pk__gt=last).order_by("pk")[:PAGE])
            for row in page:
                queue = queues[row.key]
                if queue not in left:
                    continue
                # No row is updated where another worker was faster.
                if rows.filter(pk=row.pk, lock=row.lock).update(lock=clock.now() + TAKEN_FOR):
                    taken.append(Message(row.pk, queue, row.payload))
                    left[queue] -= 1
                    if not left[queue]:
                        del left[queue]
            if len(page) < PAGE:
                break
            last = page[-1].pk
        return taken

    @classmethod
    def keep(cls, queue: str, messages: Collection[int]) -> None:
        """Lock messages of the queue, whose tasks are running, for its ``retry`` seconds from now."""
        until = clock.now() + timedelta(seconds=float(settings.QUEUES[queue]["retry"]))
        cls.get_connection().filter(pk__in=messages).update(lock=until)

    @classmethod
    def to(cls, queue: str, node: str | None, delay_s: float) -> Broker:
        """A broker whose messages workers of that node take, or everybody's, not before ``delay_s`` seconds."""
        broker = cls(key_of(queue, node))
        broker.delay_s = delay_s
        return broker
