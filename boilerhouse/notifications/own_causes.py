"""What needs an operator about notifications themselves: targets that were given up."""

from __future__ import annotations

from boilerhouse.attention.cause import Cause, Kind, Severity, Thing
from boilerhouse.notifications.models import Target


def present() -> list[Cause]:
    """One for each disabled target."""
    rows = Target.objects.exclude(disabled_at=None).only("pk", "disabled_at", "disabled_detail").order_by("pk")
    return [
        Cause(
            key=f"notification:{target.pk}",
            kind=Kind.NOTIFICATION_DISABLED,
            severity=Severity.WARNING,
            what="Notifications to {} are disabled",
            thing=Thing.NOTIFICATION,
            subject=target.pk,
            why=target.disabled_detail,
            effect="It gets no messages until an admin saves it again.",
            since=target.disabled_at,
        )
        for target in rows
        if target.disabled_at is not None
    ]
