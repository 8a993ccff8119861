"""Bearer keys: ``bh_<id><secret><checksum>``, kept only as an HMAC under a pepper of their own."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string
import zlib
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db.models import Q
from django.utils import timezone
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed

from boilerhouse.core import context
from boilerhouse.core.models import ApiKey, Role

ALPHABET = string.digits + string.ascii_letters
ID_LENGTH, SECRET_LENGTH, CHECK_LENGTH = 8, 32, 6
USED_EVERY = timedelta(minutes=1)


def _random(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def _checksum(text: str) -> str:
    value, digits = zlib.crc32(text.encode()), ""
    for _ in range(CHECK_LENGTH):
        value, rest = divmod(value, len(ALPHABET))
        digits += ALPHABET[rest]
    return digits


def _hash(key: str) -> str:
    return hmac.new(settings.BOILERHOUSE_KEY_PEPPER.encode(), key.encode(), hashlib.sha256).hexdigest()


def create_key(*, name: str, role: Role, tenant_ids: list[str] | None = None, **more: Any) -> tuple[ApiKey, str]:
    """Make a key; return its row and the key itself, which is never seen again."""
    body = _random(ID_LENGTH) + _random(SECRET_LENGTH)
    key = f"bh_{body}{_checksum(body)}"
    row = ApiKey.objects.create(
        id=body[:ID_LENGTH], name=name, role=role, tenant_ids=tenant_ids or [], key_hash=_hash(key), **more
    )
    return row, key


def find_key(key: str) -> ApiKey | None:
    """The living row of a key, None for anything else; a wrong checksum does not reach the database."""
    body = key[3:-CHECK_LENGTH]
    if not key.startswith("bh_") or len(body) != ID_LENGTH + SECRET_LENGTH or not key.isascii():
        return None
    if not hmac.compare_digest(_checksum(body), key[-CHECK_LENGTH:]):
        return None
    living = Q(expires_at=None) | Q(expires_at__gt=timezone.now())
    row = ApiKey.objects.filter(living, pk=body[:ID_LENGTH], revoked_at=None).first()
    if row is None or not hmac.compare_digest(row.key_hash, _hash(key)):
        return None
    if row.last_used_at is None or row.last_used_at < timezone.now() - USED_EVERY:
        ApiKey.objects.filter(pk=row.pk).update(last_used_at=timezone.now())
    return row


class ApiKeyAuthentication(BaseAuthentication):
    """``Authorization: Bearer bh_…``; ``request.auth`` is the ApiKey."""

    def authenticate(self, request: Any) -> tuple[None, ApiKey] | None:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        row = find_key(key.strip())
        if row is None:
            raise AuthenticationFailed("This key is wrong, expired or revoked.")
        context.set_actor(f"key {row.name}")
        return None, row

    def authenticate_header(self, request: Any) -> str:
        return 'Bearer realm="boilerhouse"'
