"""Models of notifications: targets with their rules, what was told, and the log of deliveries."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db import models
from django.db.models import Q
from django.utils import timezone

from boilerhouse.core.fields import EncryptedJSONField
from boilerhouse.core.ids import uuid7
from boilerhouse.notifications.states import TRANSITIONS, DeliveryState, Moment, TargetKind


class Target(models.Model):
    """Where notifications go, and which."""

    id = models.CharField(max_length=63, primary_key=True)
    name = models.CharField(max_length=200)
    kind = models.CharField(max_length=16, choices=TargetKind)
    secret = EncryptedJSONField(null=True)
    """``{url, signing: [{secret, until}]}``. The path of a URL is a secret too: who knows it can post to the chat."""
    destination = models.CharField(max_length=400, default="")
    """What may be shown of it: the URL's scheme and host."""
    recipients = models.JSONField(default=list, blank=True)
    """Addresses of e-mail."""
    kinds = models.JSONField(default=list)
    """The kinds of causes that it is told of."""
    pool_ids = models.JSONField(default=list, blank=True)
    """Only causes that affect one of these pools; empty: all causes."""
    is_on = models.BooleanField(default=True)
    muted_until = models.DateTimeField(null=True, blank=True)
    failing_since = models.DateTimeField(null=True, blank=True)
    """The first failed attempt since the last delivery."""
    last_delivered_at = models.DateTimeField(null=True, blank=True)
    disabled_at = models.DateTimeField(null=True, blank=True)
    """When Boilerhouse gave it up, until somebody saves it again."""
    disabled_detail = models.TextField(default="", blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(default=timezone.now)

    class Meta:
        verbose_name = "notification target"
        constraints = [
            models.CheckConstraint(condition=Q(kind__in=TargetKind.values), name="notification_target_kind_known")
        ]

    def __str__(self) -> str:
        return self.id

    def is_muted(self, now: datetime) -> bool:
        return self.muted_until is not None and self.muted_until > now


class Mute(models.Model):
    """No target is told of this cause until then."""

    key = models.CharField(max_length=200, primary_key=True)
    """That of the cause."""
    until = models.DateTimeField()
    muted_by = models.CharField(max_length=160, default="", db_default="", blank=True)
    """Who muted it, as in events. Empty: an earlier version."""
    created_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return self.key


class Incident(models.Model):
    """A cause from when it was seen until it was gone for the hold time."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    key = models.CharField(max_length=200)
    kind = models.CharField(max_length=32)
    kinds = models.JSONField(default=list)
    """Its kind, and those of its effects."""
    severity = models.CharField(max_length=16)
    title = models.CharField(max_length=300)
    text = models.TextField(default="", blank=True)
    pool_ids = models.JSONField(default=list, blank=True)
    """The pools that it affects; empty: the deployment."""
    since = models.DateTimeField()
    first_seen_at = models.DateTimeField()
    opened_at = models.DateTimeField(null=True, blank=True)
    """When it had been present for the hold time. Targets are told from then on."""
    absent_since = models.DateTimeField(null=True, blank=True)
    resolved_at = models.DateTimeField(null=True, blank=True)
    settled_at = models.DateTimeField(null=True, blank=True)
    """When everybody who was told of it had a message about its end."""

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["key"], condition=Q(resolved_at=None), name="one_incident_per_cause")
        ]
        indexes = [models.Index(fields=["settled_at"])]

    def __str__(self) -> str:
        return self.key


class DeliveryQuerySet(models.QuerySet["Delivery"]):
    def transition(self, source: DeliveryState, target: DeliveryState, **changes: Any) -> int:
        """Move matching rows from ``source`` to ``target``. Returns how many moved."""
        assert target in TRANSITIONS[source], f"{source} -> {target}"
        return self.filter(state=source).update(state=target, **changes)


class Delivery(models.Model):
    """One message to one target, with its attempts. Its id is the message's, also if it is sent again."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    target = models.ForeignKey(Target, on_delete=models.CASCADE, related_name="deliveries")
    incident = models.ForeignKey(Incident, on_delete=models.SET_NULL, null=True, related_name="deliveries")
    """Null for tests, and when retention has deleted it."""
    moment = models.CharField(max_length=16, choices=Moment)
    payload = models.JSONField()
    """What is told, without any secret."""
    state = models.CharField(max_length=16, choices=DeliveryState, default=DeliveryState.PENDING)
    owner = models.UUIDField(null=True)
    """The process that sends it now."""
    attempts = models.PositiveIntegerField(default=0)
    status_code = models.PositiveIntegerField(null=True)
    """Of the last answer."""
    detail = models.CharField(max_length=300, default="", blank=True)
    """Why the last attempt failed."""
    duration_ms = models.PositiveIntegerField(null=True)
    """Of the last attempt."""
    created_at = models.DateTimeField(default=timezone.now)
    next_attempt_at = models.DateTimeField(default=timezone.now)
    last_attempt_at = models.DateTimeField(null=True)
    delivered_at = models.DateTimeField(null=True)
    give_up_at = models.DateTimeField()

    objects = DeliveryQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "deliveries"
        constraints = [
            models.CheckConstraint(condition=Q(state__in=DeliveryState.values), name="delivery_state_known"),
            models.UniqueConstraint(
                fields=["target", "incident", "moment"],
                condition=Q(incident__isnull=False),
                name="one_message_per_target_and_incident",
            ),
        ]
        indexes = [
            models.Index(fields=["state", "next_attempt_at"]),
            models.Index(fields=["target", "created_at"]),
        ]

    def __str__(self) -> str:
        return f"{self.moment} to {self.target_id}"
