"""django-q2's ORM broker, woken when there is something to do instead of at its next look (ADR 23)."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.conf import settings
from django.db import transaction
from django_q.brokers.orm import ORM

from boilerhouse.core import bells


class Broker(ORM):  # type: ignore[misc]
    _bell: bells.Bell | None = None

    def enqueue(self, task: str) -> Any:
        """Put the message down; whoever waits for it is woken when the transaction commits."""
        made = super().enqueue(task)
        transaction.on_commit(partial(bells.ring, self.list_key), robust=True)
        return made

    def dequeue(self) -> Any:
        """The next message. Without one, None after a ring or ``QUEUE_LOOK_S`` seconds, whichever is first."""
        if self._bell is None:
            self._bell = bells.Bell(self.list_key)
        self._bell.silence()
        found = super().dequeue()  # sleeps for Conf.POLL when there is nothing: that is 0
        if not found:
            self._bell.wait(settings.QUEUE_LOOK_S)
        return found
