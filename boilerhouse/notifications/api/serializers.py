"""Serializers of notifications and their deliveries."""

from __future__ import annotations

import ipaddress
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError as DjangoValidationError
from django.core.validators import validate_email
from django.utils import timezone
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError

from boilerhouse.api.serializers import ApiSerializer, KeyField, LineField
from boilerhouse.core.bounds import TEN_YEARS_S
from boilerhouse.core.errors import FieldError, Invalid
from boilerhouse.notifications import addresses, signing
from boilerhouse.notifications.models import Delivery, Target
from boilerhouse.notifications.states import DEFAULT_RULES, RULES, DeliveryState, Moment, TargetKind
from boilerhouse.notifications.targets import TargetSettings
from pools.api.serializers import IdField
from pools.models import Pool

MAX_URL, MAX_RECIPIENTS, MAX_POOLS = 2000, 20, 200
PORTS = {"http": 80, "https": 443}
KINDS = [(kind.value, kind.value.replace("_", " ").capitalize()) for kind in RULES]
TARGET_STATES = ("active", "muted", "failing", "off", "disabled")


def check_url(url: str) -> str:
    """Raises ValidationError. A host that is an address is judged now as well; a name when it is connected to."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or PORTS.get(parts.scheme, 0)
    except ValueError as error:
        raise ValidationError("This is not a URL.", code="invalid") from error
    if parts.scheme not in PORTS or not host:
        raise ValidationError("Give an http:// or https:// URL.", code="invalid")
    try:
        address = str(ipaddress.ip_address(host))
    except ValueError:
        return url
    if addresses.is_closed(host, port, address):
        raise ValidationError(addresses.closed_words(host, port), code="target_closed")
    return url


class RecipientField(LineField):
    """An e-mail address."""

    def to_internal_value(self, data: Any) -> str:
        text = super().to_internal_value(data)
        try:
            validate_email(text)
        except DjangoValidationError as error:
            raise ValidationError("This is not an e-mail address.", code="invalid") from error
        return text


class NotificationInput(ApiSerializer):
    """What is told to whom. `url` is for types `webhook` and `slack`, `recipients` for `email`."""

    read_only_ignored = frozenset({
        "destination", "state", "failingSince", "lastDeliveredAt", "disabledAt", "disabledDetail", "createdAt",
        "updatedAt",
    })  # fmt: skip

    id = IdField(required=False)
    name = LineField(max_length=200)
    type = serializers.ChoiceField(TargetKind.choices, help_text="It cannot change.")
    url = KeyField(
        max_length=MAX_URL, write_only=True, required=False,
        help_text="Required to create a webhook or Slack target. Left out of a replacement: as stored.",
    )  # fmt: skip
    secret = KeyField(
        max_length=120, write_only=True, required=False,
        help_text="The signing secret of a webhook, `whsec_` and 24 to 64 bytes in base64. Left out: made, or as"
        " stored. Messages are signed with the previous one too for a day.",
    )  # fmt: skip
    recipients = serializers.ListField(
        child=RecipientField(max_length=254), required=False, max_length=MAX_RECIPIENTS
    )  # fmt: skip
    kinds = serializers.ListField(
        child=serializers.ChoiceField(KINDS), required=False, allow_empty=False, max_length=len(KINDS),
        help_text=f"The kinds of causes. Default: {', '.join(DEFAULT_RULES)}.",
    )  # fmt: skip
    pool_ids = serializers.ListField(
        child=LineField(max_length=63), required=False, max_length=MAX_POOLS,
        help_text="Only causes that affect one of these pools, or the whole deployment. Empty: all causes.",
    )  # fmt: skip
    enabled = serializers.BooleanField(required=False)
    muted_until = serializers.DateTimeField(required=False, allow_null=True)

    def validate_url(self, value: str) -> str:
        return check_url(value)

    def validate_secret(self, value: str) -> str:
        if not signing.is_valid(value):
            detail = "Give whsec_ and 24 to 64 random bytes in base64, or leave it out to have one made."
            raise ValidationError(detail, code="invalid")
        return value

    def validate_mutedUntil(self, value: Any) -> Any:
        if value is not None and value > timezone.now() + timedelta(seconds=TEN_YEARS_S):
            raise ValidationError("The time must be within ten years.", code="out_of_range")
        return value

    def validate_poolIds(self, value: list[str]) -> list[str]:
        existing = set(
            Pool.objects.filter(pk__in=[name for name in value if "\0" not in name]).values_list("pk", flat=True)
        )
        stored: Target | None = self.context.get("stored")
        existing |= set(stored.pool_ids) if stored else set()  # a pool may have been deleted since
        existing |= self.context.get("new_pools", set())
        if missing := [name for name in value if name not in existing]:
            raise ValidationError(f"No pool {missing[0]!r}.", code="not_found")
        return list(dict.fromkeys(value))

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        stored: Target | None = self.context.get("stored")
        kind, wrong = attrs["type"], dict[str, ErrorDetail]()
        if stored is not None and kind != stored.kind:
            wrong["type"] = ErrorDetail(f"The type cannot change (it is {stored.kind}).", "fixed")
        elif kind == TargetKind.EMAIL:
            if not attrs.get("recipients"):
                wrong["recipients"] = ErrorDetail("E-mail needs at least one recipient.", "required")
            for name in ("url", "secret"):
                if name in attrs:
                    wrong[name] = ErrorDetail("E-mail takes none.", "invalid")
        else:
            if stored is None and "url" not in attrs:
                wrong["url"] = ErrorDetail("Give the URL that messages are sent to.", "required")
            if attrs.get("recipients"):
                wrong["recipients"] = ErrorDetail("Only e-mail takes recipients.", "invalid")
            if kind == TargetKind.SLACK and "secret" in attrs:
                wrong["secret"] = ErrorDetail("Only webhooks are signed.", "invalid")
        if wrong:
            raise ValidationError(wrong)
        return attrs

    def settings(self) -> TargetSettings:
        return self.settings_of(self.validated_data)

    @staticmethod
    def settings_of(data: dict[str, Any]) -> TargetSettings:
        """What is left out has its default, except for secrets, which stay as stored."""
        return TargetSettings(
            name=data["name"], kind=data["type"], url=data.get("url"), secret=data.get("secret"),
            recipients=data.get("recipients", []), kinds=list(dict.fromkeys(data.get("kinds", DEFAULT_RULES))),
            pool_ids=data.get("pool_ids", []), is_on=data.get("enabled", True), muted_until=data.get("muted_until"),
        )  # fmt: skip


class NotificationOutput(ApiSerializer):
    id = serializers.CharField()
    name = serializers.CharField()
    type = serializers.ChoiceField(TargetKind.choices)
    destination = serializers.CharField(help_text="Scheme and host of the URL. The rest is a secret.")
    recipients = serializers.ListField(child=serializers.CharField())
    kinds = serializers.ListField(child=serializers.ChoiceField(KINDS))
    pool_ids = serializers.ListField(child=serializers.CharField())
    enabled = serializers.BooleanField()
    muted_until = serializers.DateTimeField(allow_null=True)
    state = serializers.ChoiceField(
        TARGET_STATES,
        help_text="`disabled`: nothing could be delivered for days, or the target answered 410. A PUT enables it.",
    )
    failing_since = serializers.DateTimeField(allow_null=True)
    last_delivered_at = serializers.DateTimeField(allow_null=True)
    disabled_at = serializers.DateTimeField(allow_null=True)
    disabled_detail = serializers.CharField()
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class NewNotificationOutput(NotificationOutput):
    secret = serializers.CharField(allow_null=True, help_text="The signing secret of a webhook. Shown only here.")


class NotificationDeliveryOutput(ApiSerializer):
    id = serializers.CharField(help_text="A webhook's `webhook-id` is `msg_` and these digits without hyphens.")
    event = serializers.ChoiceField(Moment.choices)
    kind = serializers.CharField(help_text="That of the cause.")
    title = serializers.CharField()
    pool_ids = serializers.ListField(child=serializers.CharField())
    state = serializers.ChoiceField(DeliveryState.choices)
    attempts = serializers.IntegerField()
    status_code = serializers.IntegerField(allow_null=True, help_text="Of the last answer.")
    error = serializers.CharField(allow_null=True, help_text="Why the last attempt failed.")
    duration_ms = serializers.IntegerField(allow_null=True)
    created_at = serializers.DateTimeField()
    last_attempt_at = serializers.DateTimeField(allow_null=True)
    next_attempt_at = serializers.DateTimeField(allow_null=True)
    delivered_at = serializers.DateTimeField(allow_null=True)


def state_of(target: Target) -> str:
    if target.disabled_at is not None:
        return "disabled"
    if not target.is_on:
        return "off"
    if target.is_muted(timezone.now()):
        return "muted"
    return "failing" if target.failing_since is not None else "active"


def render_target(target: Target) -> dict[str, Any]:
    return {
        "id": target.pk,
        "name": target.name,
        "type": target.kind,
        "destination": target.destination,
        "recipients": list(target.recipients),
        "kinds": list(target.kinds),
        "poolIds": list(target.pool_ids),
        "enabled": target.is_on,
        "mutedUntil": target.muted_until,
        "state": state_of(target),
        "failingSince": target.failing_since,
        "lastDeliveredAt": target.last_delivered_at,
        "disabledAt": target.disabled_at,
        "disabledDetail": target.disabled_detail,
        "createdAt": target.created_at,
        "updatedAt": target.updated_at,
    }


def render_delivery(delivery: Delivery) -> dict[str, Any]:
    about, is_waiting = delivery.payload, delivery.state == DeliveryState.PENDING
    return {
        "id": str(delivery.pk),
        "event": delivery.moment,
        "kind": about["kind"],
        "title": about["title"],
        "poolIds": about["poolIds"],
        "state": delivery.state,
        "attempts": delivery.attempts,
        "statusCode": delivery.status_code,
        "error": delivery.detail or None,
        "durationMs": delivery.duration_ms,
        "createdAt": delivery.created_at,
        "lastAttemptAt": delivery.last_attempt_at,
        "nextAttemptAt": delivery.next_attempt_at if is_waiting else None,
        "deliveredAt": delivery.delivered_at,
    }


def same_type(kind: str, target: Target) -> None:
    """Raises Invalid."""
    if kind != target.kind:
        raise Invalid(FieldError("/type", f"The type cannot change (it is {target.kind}).", "fixed"))
