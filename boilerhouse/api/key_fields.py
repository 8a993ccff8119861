"""Serializers of API keys."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError

from boilerhouse.api.serializers import ApiSerializer, LineField
from boilerhouse.core import api_keys
from boilerhouse.core.bounds import TEN_YEARS_S
from boilerhouse.core.ids import TENANT_ID
from boilerhouse.core.models import ApiKey, Role

MAX_TENANTS = 1000
MAX_OVERLAP_MS = 90 * 86_400_000


def _future(value: datetime | None) -> datetime | None:
    if value is not None and value <= timezone.now():
        raise ValidationError("The time must be in the future.", code="out_of_range")
    if value is not None and value > timezone.now() + timedelta(seconds=TEN_YEARS_S):
        detail = "The time must be within ten years; leave it out for a key that does not expire."
        raise ValidationError(detail, code="out_of_range")
    return value


class ApiKeyInput(ApiSerializer):
    name = LineField(max_length=100)
    role = serializers.ChoiceField(Role.choices)
    tenant_ids = serializers.ListField(
        child=serializers.RegexField(TENANT_ID, max_length=128),
        required=False,
        max_length=MAX_TENANTS,
        help_text="The tenants that a key of role `tenant` may act for. Other roles take none.",
    )
    expires_at = serializers.DateTimeField(required=False, allow_null=True)

    def validate_expiresAt(self, value: Any) -> Any:
        return _future(value)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if (attrs["role"] == Role.TENANT) != bool(attrs.get("tenant_ids")):
            detail = "A key of role tenant needs at least one tenant; other roles take none."
            raise ValidationError({"tenantIds": [ErrorDetail(detail, "invalid")]})
        return attrs


class KeyRotationInput(ApiSerializer):
    overlap_ms = serializers.IntegerField(
        min_value=0, max_value=MAX_OVERLAP_MS, default=int(api_keys.DEFAULT_OVERLAP.total_seconds() * 1000),
        help_text="How long the old key still works. 0 ends it at once.",
    )  # fmt: skip
    expires_at = serializers.DateTimeField(
        required=False, allow_null=True,
        help_text="When the new key expires. Left out: after as long a life as the old key was given, or never.",
    )  # fmt: skip

    def validate_expiresAt(self, value: Any) -> Any:
        return _future(value)


class ApiKeyOutput(ApiSerializer):
    id = serializers.CharField()
    name = serializers.CharField()
    role = serializers.ChoiceField(Role.choices)
    tenant_ids = serializers.ListField(child=serializers.CharField())
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField(allow_null=True)
    last_used_at = serializers.DateTimeField(allow_null=True, help_text="When the key was last used, to the minute.")
    revoked_at = serializers.DateTimeField(allow_null=True)
    replaced_by = serializers.CharField(
        allow_blank=True, help_text="The id of the key that replaced this one in a rotation; empty if there is none."
    )


class NewApiKeyOutput(ApiKeyOutput):
    key = serializers.CharField(help_text="Shown only here.")


def render_key(row: ApiKey) -> dict[str, Any]:
    body: dict[str, Any] = ApiKeyOutput(row).data
    return body
