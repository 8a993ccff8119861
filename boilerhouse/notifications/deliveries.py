"""One delivery: a try to send it, what is recorded of it, and what people do with it."""

from __future__ import annotations

import random
import time
from datetime import timedelta
from uuid import UUID

import structlog
from django.conf import settings
from django.db.models.functions import Coalesce

from boilerhouse.core import audit, clock, deployment_settings, failpoints
from boilerhouse.core.events import afterwards, recording
from boilerhouse.notifications import messages, targets, transports
from boilerhouse.notifications.errors import DeliveryNotFound, DeliveryPending, TargetOff, Undelivered
from boilerhouse.notifications.incidents import BELL, give_up_at
from boilerhouse.notifications.instruments import ATTEMPT_SECONDS, ATTEMPTS
from boilerhouse.notifications.models import Delivery, DeliveryQuerySet, Incident, Mute, Target
from boilerhouse.notifications.states import DeliveryState, Moment
from boilerhouse.process import processes
from boilerhouse.queues import wakeup_pipes

log = structlog.get_logger(__name__)

PAUSES_S = (5, 30, 120, 600, 1800, 3600, 7200, 14400, 21600)
"""After each failed attempt; the last one repeats until the deadline."""
JITTER = 0.1
PENDING = DeliveryState.PENDING


def find(target_id: str, delivery_id: UUID | str) -> Delivery:
    """Raises DeliveryNotFound."""
    try:
        delivery = Delivery.objects.filter(target=target_id, pk=UUID(str(delivery_id))).first()
    except ValueError:
        delivery = None
    if delivery is None:
        raise DeliveryNotFound(f"No delivery {delivery_id} of {target_id}.")
    return delivery


def attempt(delivery: Delivery, target: Target) -> bool:
    """Send it once and record what came of it; whether it was delivered. The caller owns the row.

    If the process dies in between, the row is taken over and sent again, with the same id.
    """
    began = time.monotonic()
    error: Undelivered | None = None
    status: int | None = None
    message = messages.Message(delivery.pk, Moment(delivery.moment), delivery.created_at, delivery.payload)
    try:
        status = transports.send(target, message)
    except Undelivered as undelivered:
        error, status = undelivered, undelivered.status
    except Exception as unexpected:  # otherwise it would be tried again at once, forever
        log.error("notification failed unexpectedly", target=target.pk, exc_info=True)
        error = Undelivered(f"Internal error ({type(unexpected).__name__}). See the log.")
    failpoints.reach("notifications.sent")
    took_s = time.monotonic() - began
    ATTEMPTS.labels(target.kind, "failed" if error else "delivered").inc()
    ATTEMPT_SECONDS.labels(target.kind).observe(took_s)
    delivery.attempts += 1
    delivery.status_code, delivery.duration_ms = status, round(took_s * 1000)
    delivery.last_attempt_at = clock.now()
    delivery.detail = messages.cut(error.detail, 300) if error else ""
    if error is None:
        _record_success(delivery)
    else:
        _record_failure(delivery, target, error)
    return error is None


def _attempt_fields(delivery: Delivery) -> dict[str, object]:
    """The columns of an attempt."""
    names = ("attempts", "status_code", "duration_ms", "last_attempt_at", "detail")
    return {name: getattr(delivery, name) for name in names}


def _ours(delivery: Delivery) -> DeliveryQuerySet:
    return Delivery.objects.filter(pk=delivery.pk, owner=processes.current())


def _record_success(delivery: Delivery) -> None:
    now = delivery.last_attempt_at
    _ours(delivery).transition(
        PENDING, DeliveryState.DELIVERED, delivered_at=now, owner=None, **_attempt_fields(delivery)
    )  # fmt: skip
    Target.objects.filter(pk=delivery.target_id).update(last_delivered_at=now, failing_since=None)


def _record_failure(delivery: Delivery, target: Target, error: Undelivered) -> None:
    log.warning(
        "notification not delivered", target=target.pk, delivery=str(delivery.pk), attempt=delivery.attempts,
        status=error.status, detail=error.detail,
    )  # fmt: skip
    now = clock.now()
    next_at = now + timedelta(seconds=max(_pause_s(delivery.attempts), error.after_s))
    is_last = delivery.moment == Moment.TEST or next_at > delivery.give_up_at
    if is_last:
        _ours(delivery).transition(PENDING, DeliveryState.FAILED, owner=None, **_attempt_fields(delivery))
    else:
        _ours(delivery).filter(state=PENDING).update(next_attempt_at=next_at, owner=None, **_attempt_fields(delivery))
    if delivery.moment == Moment.TEST:
        return  # somebody sees the result, and may be about to repair it
    Target.objects.filter(pk=target.pk).update(failing_since=Coalesce("failing_since", now))
    if error.is_gone:
        targets.disable(target.pk, error.detail)
    elif target.failing_since is not None and now - target.failing_since > _patience():
        days = round(_patience().total_seconds() / 86_400, 1)
        targets.disable(target.pk, f"Nothing was delivered for {days:g} days. Last: {error.detail}")


def _patience() -> timedelta:
    return timedelta(seconds=settings.BOILERHOUSE_NOTIFICATION_DISABLE_AFTER_S)


def _pause_s(attempts: int) -> float:
    pause = PAUSES_S[min(attempts, len(PAUSES_S)) - 1]
    return pause * (1 + random.uniform(-JITTER, JITTER))  # noqa: S311  no secret


def test(target: Target) -> Delivery:
    """Send a test now and wait for its result, at most as long as a transport may take. It is not retried."""
    now = clock.now()
    delivery = Delivery(
        target=target, moment=Moment.TEST, payload=messages.test_payload(now), created_at=now, next_attempt_at=now,
        give_up_at=now, owner=processes.current(),
    )  # fmt: skip
    with recording():
        audit.record("notification.test", target.pk)
        delivery.save(force_insert=True)
    attempt(delivery, target)
    delivery.refresh_from_db()
    return delivery


def resend(target: Target, delivery: Delivery) -> Delivery:
    """Send it again, with the same id and as often as a new one. Raises DeliveryPending, TargetOff."""
    if not target.is_on or target.disabled_at is not None:
        raise TargetOff
    now = clock.now()
    with recording():
        fresh = {"attempts": 0, "next_attempt_at": now, "give_up_at": give_up_at(now), "delivered_at": None}
        row, state = Delivery.objects.filter(pk=delivery.pk), DeliveryState(delivery.state)
        if state == PENDING or not row.transition(state, PENDING, **fresh):
            raise DeliveryPending
        audit.record("notification.resend", target.pk, after={"delivery": delivery.pk})
        afterwards(lambda: wakeup_pipes.notify(BELL))
    delivery.refresh_from_db()
    return delivery


def forget_old() -> int:
    """Delete the log past the retention of runs, settled incidents without one, and mutes that have ended."""
    before = clock.now() - timedelta(seconds=deployment_settings.current().retention_s["runs"])
    old = Delivery.objects.filter(created_at__lt=before).exclude(state=PENDING).delete()[0]
    ended = Incident.objects.filter(settled_at__lt=before).delete()[0]
    return old + ended + Mute.objects.filter(until__lt=clock.now()).delete()[0]
