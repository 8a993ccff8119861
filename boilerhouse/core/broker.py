"""django-q2's ORM broker, woken when there is something to do instead of at its next look (ADR 23)."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from functools import partial
from typing import Any

import structlog
from django.conf import settings
from django.db import connection, transaction
from django_q.brokers.orm import ORM
from django_q.conf import Conf

from boilerhouse.core import bells, canary, clock
from boilerhouse.core.outage import DATABASE_LOST

log = structlog.get_logger(__name__)

NEARLY = timedelta(seconds=10)
"""Two processes know the database's clock some milliseconds apart; a message that is taken is locked for hours."""


class Broker(ORM):  # type: ignore[misc]
    _bell: bells.Bell | None = None
    _next_canary = 0.0
    _is_lost = False
    delay_s = 0.0
    """How long what is put down is left alone first."""

    def enqueue(self, task: str) -> Any:
        """Put the message down; whoever waits for it is woken when the transaction commits."""
        at = clock.now()
        if self.delay_s:
            at += NEARLY + timedelta(seconds=self.delay_s)
        made = self.get_connection().create(key=self.list_key, payload=task, lock=at).pk
        if not self.delay_s:
            transaction.on_commit(partial(bells.ring, self.list_key), robust=True)
        return made

    def dequeue(self) -> Any:
        """The next message, and a canary when one is due. Without any, None after a ring or ``QUEUE_LOOK_S`` seconds.

        While the database is away there are canaries only: that is its silence, not the cluster's.
        """
        if self._bell is None:
            self._bell = bells.Bell(self.list_key)
        self._bell.silence()
        found = self._canaries() or self._look()  # a canary waits for no database
        if not found:
            self._bell.wait(settings.QUEUE_LOOK_S)
        return found

    def _look(self) -> list[tuple[Any, Any]]:
        try:
            found = self._take()
        except DATABASE_LOST as error:
            if not self._is_lost:
                log.warning("queue cannot be looked at", queue=self.list_key, error=type(error).__name__)
            self._is_lost = True
            connection.close()
            return []
        self._is_lost = False
        return found

    def _take(self) -> list[tuple[Any, Any]]:
        """As django-q2 does it, by the clock that all machines share."""
        rows, found = self.get_connection(), []
        due = clock.now() + NEARLY  # a message that was put down this instant is not left for the next look
        for task in rows.filter(key=self.list_key, lock__lt=due).order_by("id")[: Conf.BULK]:
            until = clock.now() + timedelta(seconds=Conf.RETRY)
            if rows.filter(pk=task.pk, lock=task.lock).update(lock=until):
                found.append((task.pk, task.payload))  # else another cluster was faster
        return found

    @classmethod
    def later(cls, queue: str, delay_s: float) -> Broker:
        """A broker whose messages nobody takes before ``delay_s`` seconds have passed."""
        broker = cls(queue)
        broker.delay_s = delay_s
        return broker

    def _canaries(self) -> list[tuple[Any, Any]]:
        tree = os.environ.get(canary.TREE)
        if tree is None or time.monotonic() < self._next_canary:
            return []
        self._next_canary = time.monotonic() + canary.EVERY_S
        return [(0, canary.message(tree, self.list_key))]  # 0: there is nothing to acknowledge
