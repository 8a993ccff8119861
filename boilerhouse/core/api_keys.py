"""API keys: ``bh_<id><secret><checksum>``, stored only as an HMAC with a separate pepper."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string
import zlib
from collections.abc import Collection
from datetime import datetime, timedelta

from django.conf import settings
from django.db import close_old_connections
from django.db.models import Q, QuerySet
from django.utils import timezone

from boilerhouse.core import audit, prepared
from boilerhouse.core.errors import Conflict, NotFound
from boilerhouse.core.events import recording, wake
from boilerhouse.core.models import ApiKey, Role
from boilerhouse.core.prepared import Given

ALPHABET = string.digits + string.ascii_letters
ID_LENGTH, SECRET_LENGTH, CHECK_LENGTH = 8, 32, 6
USED_EVERY = timedelta(minutes=1)
DEFAULT_OVERLAP = timedelta(days=1)
"""How long a key still works after its rotation."""


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


class ApiKeyNotFound(NotFound):
    """No such API key."""

    code = "api_key_not_found"


def create_key(
    *, name: str, role: Role, tenant_ids: list[str] | None = None, expires_at: datetime | None = None
) -> tuple[ApiKey, str]:
    """Create a key. Returns its row and the key itself, which cannot be read again."""
    body = _random(ID_LENGTH) + _random(SECRET_LENGTH)
    key = f"bh_{body}{_checksum(body)}"
    tenants = tenant_ids or []
    with recording():
        row = ApiKey.objects.create(
            id=body[:ID_LENGTH], name=name, role=role, tenant_ids=tenants, key_hash=_hash(key), expires_at=expires_at
        )
        after = {"name": name, "role": role, "tenantIds": tenants, "expiresAt": expires_at}
        audit.record("api_key.create", row.pk, after=after)
    return row, key


class KeyHasEnded(Conflict):
    """The key has been revoked or has expired. Create a new one."""

    code = "key_has_ended"


class KeyIsReplaced(Conflict):
    """The key has been rotated already. Rotate the key that replaced it."""

    code = "key_is_replaced"


def rotate_key(
    key_id: str, *, overlap: timedelta = DEFAULT_OVERLAP, expires_at: datetime | None = None
) -> tuple[ApiKey, str]:
    """Create a key that may do the same, and let the old one end after ``overlap``, or earlier if it expires earlier.

    The new key expires at ``expires_at``; without it, after as long a life as the old one was given, or never. Returns
    its row and the key itself, which cannot be read again. Raises ApiKeyNotFound, KeyHasEnded, and KeyIsReplaced if
    its successor is valid: with two successors, nobody knows which one the programs have.
    """
    with recording():
        old = _locked(key_id)
        if not old.is_living:
            raise KeyHasEnded
        newest = newest_of(old)
        if newest.pk != old.pk and newest.is_living:
            raise KeyIsReplaced(f"The key bh_{newest.pk}… has replaced it. Rotate that one.")
        now = timezone.now()
        if expires_at is None and newest.expires_at is not None:  # the old one's own may be the end of an overlap
            expires_at = now + (newest.expires_at - newest.created_at)
        new, key = create_key(name=old.name, role=Role(old.role), tenant_ids=old.tenant_ids, expires_at=expires_at)
        ends_at = min(filter(None, (old.expires_at, now + overlap)))
        ApiKey.objects.filter(pk=old.pk).update(expires_at=ends_at, replaced_by=new.pk)
        audit.record(
            "api_key.rotate", old.pk, before={"expiresAt": old.expires_at},
            after={"expiresAt": ends_at, "replacedBy": new.pk},
        )  # fmt: skip
        wake()
    return new, key


def newest_of(key: ApiKey) -> ApiKey:
    """The last key of its rotations, or itself. It may have ended."""
    while key.replaced_by and (successor := ApiKey.objects.filter(pk=key.replaced_by).first()):
        key = successor
    return key


def _locked(key_id: str) -> ApiKey:
    row = ApiKey.objects.select_for_update().filter(pk=key_id).first()
    if row is None:
        raise ApiKeyNotFound(f"No API key {key_id[:60]}.")
    return row


def revoke_key(key_id: str) -> None:
    """Revoke the key; open streams of it end within a second. Raises ApiKeyNotFound."""
    with recording():
        row = ApiKey.objects.filter(pk=key_id).first()
        if row is None:
            raise ApiKeyNotFound(f"No API key {key_id[:60]}.")
        if not ApiKey.objects.filter(pk=key_id, revoked_at=None).update(revoked_at=timezone.now()):
            return
        audit.record("api_key.revoke", key_id, before={"name": row.name, "role": row.role})
        wake()


def _living() -> Q:
    return Q(revoked_at=None) & (Q(expires_at=None) | Q(expires_at__gt=timezone.now()))


def living_keys(ids: Collection[str]) -> set[str]:
    """The subset of these keys that is still valid."""
    return set(ApiKey.objects.filter(_living(), pk__in=ids).values_list("pk", flat=True))


def lives(key_id: str) -> bool:
    """Whether the key is still valid; for threads that do not serve a request."""
    close_old_connections()
    return key_id in living_keys([key_id])


def is_well_formed(key: str) -> bool:
    """Whether this can be a key: its length and checksum are correct."""
    body = key[3:-CHECK_LENGTH]
    if not key.startswith("bh_") or len(body) != ID_LENGTH + SECRET_LENGTH or not key.isascii():
        return False
    return hmac.compare_digest(_checksum(body), key[-CHECK_LENGTH:])


@prepared.selection
def _key() -> QuerySet[ApiKey]:
    return ApiKey.objects.filter(pk=Given("id", ApiKey._meta.pk))


def find_key(key: str) -> ApiKey | None:
    """The row of a valid key, otherwise None. Malformed keys cause no query."""
    if not is_well_formed(key):
        return None
    row = _key.first(id=key[3 : 3 + ID_LENGTH])
    if row is None or not row.is_living or not hmac.compare_digest(row.key_hash, _hash(key)):
        return None
    if row.last_used_at is None or row.last_used_at < timezone.now() - USED_EVERY:
        ApiKey.objects.filter(pk=row.pk).update(last_used_at=timezone.now())
    return row
