"""The threads of each controller that send notifications. A target that hangs holds one of them, for a limited time.

Targets that fail leave one thread free, so however many of them hang, the others are reached.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID

import structlog
from django.db import close_old_connections, connection
from django.db.models import Exists, OuterRef, QuerySet

from boilerhouse.core import clock, compiled
from boilerhouse.core.compiled import Compiled
from boilerhouse.notifications import deliveries, targets
from boilerhouse.notifications.incidents import BELL
from boilerhouse.notifications.models import Delivery, Target
from boilerhouse.notifications.states import DeliveryState, Moment
from boilerhouse.process import ownership, processes
from boilerhouse.process.outage import DATABASE_LOST
from boilerhouse.process.steps import steps
from boilerhouse.queues import wakeup_pipes

log = structlog.get_logger(__name__)

THREADS = 4
LOOK_EVERY_S, REST_LOOK_EVERY_S = 2.0, 10.0
"""The interval of two looks, also while nothing is pending. Who creates a message here wakes the courier; it is late by
at most this when another machine creates one."""
AT_ONCE = 100
"""How many due rows are read at a time."""


def due() -> QuerySet[Delivery]:
    """What may be sent now, oldest first: not to a muted target, and the end of an incident after its beginning."""
    now = clock.now()
    earlier = Delivery.objects.filter(
        target=OuterRef("target"), incident=OuterRef("incident"), state=DeliveryState.PENDING, moment=Moment.OPENED
    )
    rows = Delivery.objects.filter(state=DeliveryState.PENDING, next_attempt_at__lte=now)
    rows = rows.exclude(target__muted_until__gt=now)
    rows = rows.exclude(Exists(earlier), moment=Moment.RESOLVED)
    return rows.filter(target__in=targets.active()).select_related("target").order_by("next_attempt_at", "pk")


@compiled.cached
def _any_pending() -> Compiled:
    return compiled.selection(Delivery.objects.filter(state=DeliveryState.PENDING).order_by().values_list("pk")[:1])


def _take(delivery_id: UUID) -> bool:
    """Whether this thread sends it: it is still due, and no thread of a living process, this one included, has it."""
    row = Delivery.objects.filter(pk=delivery_id, state=DeliveryState.PENDING, next_attempt_at__lte=clock.now())
    me = processes.current()
    is_taken = row.filter(owner=None).update(owner=me) or row.filter(owner__isnull=False).exclude(
        owner__in=processes.living()
    ).update(owner=me)
    if is_taken:
        ownership.take(Delivery, delivery_id)
    return bool(is_taken)


class Courier:
    """Sends what is due until ``stop``; what is being sent then is sent by the next controller."""

    def __init__(self, stop: threading.Event, attempt: Callable[[Delivery, Target], Any] = deliveries.attempt) -> None:
        self._stop, self._attempt = stop, attempt
        self._sending: dict[str, tuple[bool, threading.Thread]] = {}
        """By target: whether it fails, and the thread that sends to it."""
        self._is_at_rest = False

    def start(self) -> None:
        threading.Thread(target=self._forever, name="notifications", daemon=True).start()

    def _forever(self) -> None:
        pipe = wakeup_pipes.WakeupPipe(BELL)
        try:
            while not self._stop.is_set():
                pipe.silence()
                if not steps.attempt("notifications", self.turn):
                    connection.close()
                pipe.wait(REST_LOOK_EVERY_S if self._is_at_rest else LOOK_EVERY_S)
        finally:
            connection.close()

    def turn(self) -> None:
        """Start a thread for each target with something due, as far as there is room."""
        close_old_connections()
        self._sending = {pk: (fails, thread) for pk, (fails, thread) in self._sending.items() if thread.is_alive()}
        self._is_at_rest = not _any_pending().exists()
        if self._is_at_rest:
            return
        living: set[UUID] | None = None
        for delivery in due()[:AT_ONCE]:
            if len(self._sending) >= THREADS:
                return
            target = delivery.target
            if target.pk in self._sending or (target.failing_since and self._failing() >= THREADS - 1):
                continue
            if delivery.owner is not None:
                living = processes.living() if living is None else living
                if delivery.owner in living:
                    continue
            thread = threading.Thread(target=self._send, args=(delivery.pk,), name=f"notify {target.pk}", daemon=True)
            self._sending[target.pk] = (target.failing_since is not None, thread)
            thread.start()

    def _failing(self) -> int:
        return sum(fails for fails, _ in self._sending.values())

    def _send(self, delivery_id: UUID) -> None:
        """An error leaves the row to whoever looks next."""
        try:
            with ownership.unit_of_work():
                try:
                    if _take(delivery_id):
                        row = Delivery.objects.select_related("target").get(pk=delivery_id)
                        self._attempt(row, row.target)
                except DATABASE_LOST as error:
                    log.warning("notification lost the database connection", error=type(error).__name__)
                    ownership.give_up()
                except Exception:
                    ownership.give_up()
                    raise
        except Exception as error:
            log.error("notification failed unexpectedly", error=type(error).__name__, exc_info=True)
        finally:
            connection.close()
        wakeup_pipes.notify(BELL)
