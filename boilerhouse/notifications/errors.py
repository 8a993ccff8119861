"""Errors of notifications."""

from __future__ import annotations

from boilerhouse.core.errors import Conflict, NotFound


class NotificationNotFound(NotFound):
    """No such notification."""

    code = "notification_not_found"


class DeliveryNotFound(NotFound):
    """No such delivery."""

    code = "delivery_not_found"


class DeliveryPending(Conflict):
    """The delivery is being sent already."""

    code = "delivery_pending"


class TargetOff(Conflict):
    """The notification is off or disabled. Turn it on first."""

    code = "notification_off"


class Undelivered(Exception):
    """An attempt failed. The detail contains neither the target's URL nor anything of its answer."""

    def __init__(self, detail: str, *, status: int | None = None, after_s: float = 0.0, is_gone: bool = False) -> None:
        super().__init__(detail)
        self.detail, self.status = detail, status
        self.after_s = after_s
        """How long the target asks to wait; 0 if it does not say."""
        self.is_gone = is_gone
        """Whether the target wants nothing more, ever."""
