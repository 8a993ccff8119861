"""API keys: made, listed, revoked; the key itself is shown once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.utils import timezone
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.response import Response

from boilerhouse.core import api_keys
from boilerhouse.core.api.base import ApiView
from boilerhouse.core.api.pagination import paginate
from boilerhouse.core.api.schema import CURSOR, LIMIT, operation, page_of, query
from boilerhouse.core.api.serializers import ApiSerializer, LineField
from boilerhouse.core.bounds import TEN_YEARS_S
from boilerhouse.core.ids import TENANT_ID
from boilerhouse.core.models import ApiKey, Role

MAX_TENANTS = 1000


class ApiKeyInput(ApiSerializer):
    name = LineField(max_length=100)
    role = serializers.ChoiceField(Role.choices)
    tenant_ids = serializers.ListField(
        child=serializers.RegexField(TENANT_ID, max_length=128),
        required=False,
        max_length=MAX_TENANTS,
        help_text="Of a key with role `tenant`, and only of one: the tenants that it may act for.",
    )
    expires_at = serializers.DateTimeField(required=False, allow_null=True)

    def validate_expiresAt(self, value: Any) -> Any:
        if value is not None and value <= timezone.now():
            raise ValidationError("This is in the past.", code="out_of_range")
        if value is not None and value > timezone.now() + timedelta(seconds=TEN_YEARS_S):
            detail = "Ten years are the most; leave it out for a key that does not expire."
            raise ValidationError(detail, code="out_of_range")
        return value

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if (attrs["role"] == Role.TENANT) != bool(attrs.get("tenant_ids")):
            detail = "Give at least one for role tenant, and none for other roles."
            raise ValidationError({"tenantIds": [ErrorDetail(detail, "invalid")]})
        return attrs


class ApiKeyOutput(ApiSerializer):
    id = serializers.CharField()
    name = serializers.CharField()
    role = serializers.ChoiceField(Role.choices)
    tenant_ids = serializers.ListField(child=serializers.CharField())
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField(allow_null=True)
    last_used_at = serializers.DateTimeField(allow_null=True, help_text="To the minute.")
    revoked_at = serializers.DateTimeField(allow_null=True)


class NewApiKeyOutput(ApiKeyOutput):
    key = serializers.CharField(help_text="Shown here and never again.")


def render_key(row: ApiKey) -> dict[str, Any]:
    shown: dict[str, Any] = ApiKeyOutput(row).data
    return shown


class ApiKeyListView(ApiView):
    admin_only = True
    viewer_may_read = False

    @operation(
        operation_id="listApiKeys",
        summary="List API keys",
        description="Revoked ones too.",
        parameters=[query("role"), LIMIT, CURSOR],
        responses=page_of("ApiKeyPage", ApiKeyOutput),
    )
    def get(self, request: Any) -> Response:
        return paginate(request, ApiKey.objects.all(), render_key, {"role": "role"})

    @operation(
        operation_id="createApiKey",
        summary="Make an API key",
        description="`key` is shown once; only its hash is kept.",
        request=ApiKeyInput,
        responses={201: NewApiKeyOutput},
    )
    def post(self, request: Any) -> Response:
        data = self.read(ApiKeyInput).validated_data
        row, key = api_keys.create_key(
            name=data["name"],
            role=Role(data["role"]),
            tenant_ids=data.get("tenant_ids"),
            expires_at=data.get("expires_at"),
        )
        return Response({**render_key(row), "key": key}, status=201)


class ApiKeyView(ApiView):
    admin_only = True
    viewer_may_read = False

    @operation(
        operation_id="revokeApiKey",
        summary="Revoke an API key",
        description="At once; its open event streams and followed logs end within a second.",
        responses={204: None},
    )
    def delete(self, request: Any, key_id: str) -> Response:
        api_keys.revoke_key(key_id)
        return Response(status=204)
