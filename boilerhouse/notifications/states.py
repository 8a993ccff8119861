"""States and kinds of notifications."""

from __future__ import annotations

from django.db.models import TextChoices

from boilerhouse.attention.cause import Kind


class TargetKind(TextChoices):
    """How a target is reached."""

    WEBHOOK = "webhook"
    """A signed request (Standard Webhooks)."""
    SLACK = "slack"
    """An incoming webhook of Slack, or of a chat that takes the same (Mattermost, Rocket.Chat)."""
    EMAIL = "email"


class Moment(TextChoices):
    """Why something is sent."""

    OPENED = "opened"
    RESOLVED = "resolved"
    TEST = "test"


class DeliveryState(TextChoices):
    PENDING = "pending"
    """To be sent, now or after a pause."""
    DELIVERED = "delivered"
    FAILED = "failed"
    """Every attempt failed until the deadline. It can be sent again."""
    CANCELLED = "cancelled"
    """Its target was disabled."""


TRANSITIONS = {
    DeliveryState.PENDING: {DeliveryState.DELIVERED, DeliveryState.FAILED, DeliveryState.CANCELLED},
    DeliveryState.DELIVERED: {DeliveryState.PENDING},
    DeliveryState.FAILED: {DeliveryState.PENDING},
    DeliveryState.CANCELLED: {DeliveryState.PENDING},
}
RULES = tuple(kind for kind in Kind if kind != Kind.CONTROLLER_LOST)
"""What can be told. Without a controller, nobody tells anything."""
DEFAULT_RULES = (
    Kind.STATE_NOT_SAVED,
    Kind.SAVE_OVERDUE,
    Kind.SINK_DOWN,
    Kind.POOL_CANNOT_START,
    Kind.POOL_UNSTABLE,
    Kind.ENGINE_GONE,
    Kind.HOST_NOT_READY,
    Kind.NODE_LOST,
    Kind.DISK_LOW,
    Kind.BACKUP_MISSING,
    Kind.NOTIFICATION_DISABLED,
)
