"""Mutes of single causes: nobody is told of them until then."""

from __future__ import annotations

from datetime import datetime

from boilerhouse.core import audit, clock
from boilerhouse.core.events import recording
from boilerhouse.notifications.incidents import key_of
from boilerhouse.notifications.models import Mute


def mute(cause_key: str, until: datetime) -> None:
    """Tell nobody of the cause until then. If it is still present then, it is told."""
    key = key_of(cause_key)
    with recording():
        Mute.objects.update_or_create(pk=key, defaults={"until": until})
        audit.record("cause.mute", key[:128], after={"until": until})


def unmute(cause_key: str) -> None:
    key = key_of(cause_key)
    with recording():
        if Mute.objects.filter(pk=key).delete()[0]:
            audit.record("cause.unmute", key[:128])


def muted() -> dict[str, datetime]:
    """The keys of muted causes → until when."""
    return dict(Mute.objects.filter(until__gt=clock.now()).values_list("pk", "until"))
