"""Create, list, rotate and revoke API keys. The key itself is returned only once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from rest_framework.response import Response

from boilerhouse.api.base import ApiView
from boilerhouse.api.key_fields import ApiKeyInput, ApiKeyOutput, KeyRotationInput, NewApiKeyOutput, render_key
from boilerhouse.api.pagination import paginate
from boilerhouse.api.schema import CURSOR, LIMIT, operation, page_of, query
from boilerhouse.core import api_keys
from boilerhouse.core.models import ApiKey, Role


class ApiKeyListView(ApiView):
    admin_only = True
    viewer_may_read = False

    @operation(
        operation_id="listApiKeys",
        summary="List API keys",
        description="Includes revoked keys.",
        parameters=[query("role"), LIMIT, CURSOR],
        responses=page_of("ApiKeyPage", ApiKeyOutput),
    )
    def get(self, request: Any) -> Response:
        return paginate(request, ApiKey.objects.all(), render_key, {"role": "role"})

    @operation(
        operation_id="createApiKey",
        summary="Create an API key",
        description="`key` is shown once; only its hash is stored.",
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
        description="Takes effect at once. Open event streams and followed logs of the key end within a second.",
        responses={204: None},
    )
    def delete(self, request: Any, key_id: str) -> Response:
        api_keys.revoke_key(key_id)
        return Response(status=204)


class KeyRotationView(ApiView):
    admin_only = True
    viewer_may_read = False

    @operation(
        operation_id="rotateApiKey",
        summary="Replace an API key by one that may do the same",
        description="`key` is shown once. The old key works for `overlapMs` longer, or until it expires. 409 if it has"
        " ended (`key_has_ended`), or if the key that has replaced it is valid (`key_is_replaced`): rotate that one.",
        request=KeyRotationInput,
        responses={201: NewApiKeyOutput},
    )
    def post(self, request: Any, key_id: str) -> Response:
        data = self.read(KeyRotationInput).validated_data
        overlap = timedelta(milliseconds=data["overlap_ms"])
        row, key = api_keys.rotate_key(key_id, overlap=overlap, expires_at=data.get("expires_at"))
        return Response({**render_key(row), "key": key}, status=201)
