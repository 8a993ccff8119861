"""Mutes of single causes: nobody is told of them until then."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

from boilerhouse.core import audit, clock, context
from boilerhouse.core.errors import NotFound
from boilerhouse.core.events import recording
from boilerhouse.notifications import incidents
from boilerhouse.notifications.incidents import key_of
from boilerhouse.notifications.models import Mute

LONGEST = timedelta(days=30)


class CauseNotFound(NotFound):
    """No such cause is present. It may have been resolved in the meantime."""

    code = "cause_not_found"


def mute(cause_key: str, until: datetime) -> Mute:
    """Send no notifications of the cause until then. If it is still present then, one is sent."""
    key = key_of(cause_key)
    values = {"until": until, "muted_by": context.actor(), "created_at": clock.now()}
    with recording():
        row, _ = Mute.objects.update_or_create(pk=key, defaults=values)
        audit.record("cause.mute", key[:128], after={"until": until})
    return row


def unmute(cause_key: str) -> None:
    """Send notifications of the cause again. Does nothing if it is not muted."""
    key = key_of(cause_key)
    with recording():
        if Mute.objects.filter(pk=key).delete()[0]:
            audit.record("cause.unmute", key[:128])


def muted() -> dict[str, Mute]:
    """The mutes that have not ended, by the stored key of the cause."""
    return {row.pk: row for row in Mute.objects.filter(until__gt=clock.now()).order_by("until", "pk")}


def id_of(cause_key: str) -> str:
    """The id of a cause in URLs; its key may contain any character."""
    return hashlib.sha256(key_of(cause_key).encode()).hexdigest()[:16]


def key_of_id(cause_id: str) -> str:
    """The key of a cause that is present or muted. Raises CauseNotFound."""
    keys = [*muted(), *(cause.key for cause in incidents.present())]
    key = next((key for key in keys if id_of(key) == cause_id), None)
    if key is None:
        raise CauseNotFound
    return key
