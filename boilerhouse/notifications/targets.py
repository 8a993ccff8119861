"""Operations on targets: create, replace, delete, mute. Secrets are encrypted and never shown again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from django.db import IntegrityError
from django.db.models import QuerySet

from boilerhouse.core import audit, clock
from boilerhouse.core.events import recording
from boilerhouse.notifications import signing
from boilerhouse.notifications.errors import NotificationNotFound
from boilerhouse.notifications.models import Delivery, Target
from boilerhouse.notifications.states import DeliveryState, TargetKind
from pools.errors import IdTaken
from pools.services import unused_id

PLAIN = ("name", "recipients", "kinds", "pool_ids", "is_on", "muted_until")
"""The fields that a user sets and that are no secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSettings:
    """What a user submits. ``url`` and ``secret`` None: as stored."""

    name: str
    kind: str
    url: str | None = None
    secret: str | None = None
    recipients: Sequence[str] = ()
    kinds: Sequence[str]
    pool_ids: Sequence[str] = ()
    is_on: bool = True
    muted_until: datetime | None = None


def find(target_id: str) -> Target:
    """Raises NotificationNotFound."""
    target = Target.objects.filter(pk=target_id).first()
    if target is None:
        raise NotificationNotFound(f"No notification {target_id}.")
    return target


def create(*, id: str | None, settings: TargetSettings) -> tuple[Target, str]:
    """Returns the target and its new signing secret, which is empty unless it is a webhook. Raises IdTaken."""
    secret = (settings.secret or signing.new_secret()) if settings.kind == TargetKind.WEBHOOK else ""
    try:
        with recording():
            target = Target(id=unused_id(id, settings.name, Target.objects.all()), kind=settings.kind)
            _set(target, settings, secret)
            audit.record("notification.create", target.pk, after=_audited(target))
            target.save(force_insert=True)
            return target, secret
    except IntegrityError as error:
        raise IdTaken from error


def replace(
    target: Target, settings: TargetSettings, *, check: Callable[[Target], None] = lambda _locked: None
) -> Target:  # fmt: skip
    """Replace it. A disabled target is enabled again.

    Deliveries that wait go to the new destination. ``check`` gets the locked row first and raises an error to reject
    the change.
    """
    with recording():
        target = Target.objects.select_for_update().get(pk=target.pk)
        check(target)
        before, old = _audited(target), target.secret
        _set(target, settings, settings.secret or "")
        target.failing_since = target.disabled_at = None
        target.disabled_detail = ""
        target.updated_at = clock.now()
        after = _audited(target)
        after |= {"secret": "changed"} if old != target.secret else {}
        audit.record("notification.update", target.pk, **audit.changes(before, after))
        target.save(force_update=True, update_fields=_STORED)
        return target


def mute(target: Target, until: datetime | None) -> None:
    """Send it nothing until then; None ends the mute."""
    with recording():
        before = target.muted_until
        Target.objects.filter(pk=target.pk).update(muted_until=until, updated_at=clock.now())
        audit.record("notification.mute", target.pk, before={"muted_until": before}, after={"muted_until": until})


def delete(target: Target) -> None:
    """Delete it with its log. What waits is not sent."""
    with recording():
        audit.record("notification.delete", target.pk, before=_audited(target))
        target.delete()


def disable(target_id: str, detail: str) -> bool:
    """Give up a target that is dead; whether it was not disabled already. What waits is cancelled."""
    rows = Target.objects.filter(pk=target_id, disabled_at=None)
    with recording():
        if not rows.update(disabled_at=clock.now(), disabled_detail=detail):
            return False
        cancel(Delivery.objects.filter(target=target_id))
        audit.record("notification.disable", target_id, after={"reason": detail})
    return True


def cancel(rows: QuerySet[Delivery]) -> None:
    """Give up what waits."""
    Delivery.objects.filter(pk__in=rows.values("pk")).transition(
        DeliveryState.PENDING, DeliveryState.CANCELLED, owner=None
    )


def active() -> QuerySet[Target]:
    """Targets to which something may be sent."""
    return Target.objects.filter(is_on=True, disabled_at=None)


_STORED = (*PLAIN, "secret", "destination", "failing_since", "disabled_at", "disabled_detail", "updated_at")


def _set(target: Target, settings: TargetSettings, secret: str) -> None:
    for name in PLAIN:
        value = getattr(settings, name)
        setattr(target, name, list(value) if name in ("recipients", "kinds", "pool_ids") else value)
    if settings.kind == TargetKind.EMAIL:
        target.secret, target.destination = None, ""
        return
    stored: dict[str, Any] = dict(target.secret or {"url": "", "signing": []})
    if settings.url is not None:
        stored["url"] = settings.url
        target.destination = origin_of(settings.url)
    if secret:
        stored["signing"] = signing.replaced(stored["signing"], secret, clock.now())
    target.secret = stored


def plain(settings: TargetSettings) -> dict[str, Any]:
    """What is submitted, without secrets, in the API's names."""
    destination = {"destination": origin_of(settings.url)} if settings.url is not None else {}
    return {
        "name": settings.name, "recipients": list(settings.recipients), "kinds": list(settings.kinds),
        "poolIds": list(settings.pool_ids), "enabled": settings.is_on, "mutedUntil": settings.muted_until,
        **destination,
    }  # fmt: skip


def has_other_secret(target: Target, settings: TargetSettings) -> bool:
    """Whether what is submitted replaces the stored URL or signing secret."""
    stored = target.secret or {"url": None, "signing": []}
    signed_with = stored["signing"][0]["secret"] if stored["signing"] else None
    return settings.url not in (None, stored["url"]) or settings.secret not in (None, signed_with)


def origin_of(url: str) -> str:
    """Scheme, host and port: the rest of a URL may be a secret."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}"


def _audited(target: Target) -> dict[str, Any]:
    return {
        "type": target.kind,
        "destination": target.destination,
        **{name: getattr(target, name) for name in PLAIN},
    }
