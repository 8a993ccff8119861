"""Authentication by API key."""

from __future__ import annotations

from typing import Any

from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed

from boilerhouse.core import context
from boilerhouse.core.api_keys import find_key
from boilerhouse.core.models import ApiKey
from boilerhouse.web import connections
from boilerhouse.web.request_heads import Refusal


class ApiKeyAuthentication(BaseAuthentication):
    """``Authorization: Bearer bh_…``; ``request.auth`` is the ApiKey."""

    def authenticate(self, request: Any) -> tuple[None, ApiKey] | None:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        row = find_key(key.strip())
        if row is None or connections.refusal_of(request) is Refusal.NO_KEY:
            raise AuthenticationFailed("The API key is unknown, expired or revoked.")
        connections.vouch(request)
        context.set_actor(f"key {row.name}")
        return None, row

    def authenticate_header(self, request: Any) -> str:
        return 'Bearer realm="boilerhouse"'
