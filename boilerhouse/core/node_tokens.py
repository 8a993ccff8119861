"""Tokens that let one machine each join the deployment: ``bhn_<id>_<secret>``, stored only as an HMAC."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import timedelta
from typing import ClassVar

from django.conf import settings
from django.db import connection

from boilerhouse.core import audit, clock, context
from boilerhouse.core.errors import Conflict, Forbidden, NotFound
from boilerhouse.core.events import recording
from boilerhouse.core.models import NodeToken

DEFAULT_TTL = timedelta(hours=1)
MIN_TTL, MAX_TTL = timedelta(minutes=1), timedelta(days=7)
KEPT_FOR = timedelta(days=30)
"""How long a token that is used or expired stays in the list."""


class OneMachineOnly(Conflict):
    """The database is SQLite, which serves one machine. Move to PostgreSQL first (docs/scaling.md)."""

    code = "one_machine_only"


class NodeTokenNotFound(NotFound):
    """No such token."""

    code = "node_token_not_found"


class BadNodeToken(Forbidden):
    """The token is unknown. Make one with manage.py nodes token."""

    code = "bad_node_token"


class NodeTokenEnded(Conflict):
    """The token has been used or has expired. Each lets one machine join, once."""

    code: ClassVar[str] = "node_token_ended"


def check_database() -> None:
    """Raise OneMachineOnly if the database serves one machine only."""
    if connection.vendor == "sqlite":
        raise OneMachineOnly


def create(ttl: timedelta = DEFAULT_TTL) -> tuple[NodeToken, str]:
    """Create a token. Returns its row and the token itself, which cannot be read again. Raises OneMachineOnly."""
    check_database()
    id, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
    token = f"bhn_{id}_{secret}"
    with recording():
        values = {"created_by": context.actor()[:160], "expires_at": clock.now() + ttl}
        row = NodeToken.objects.create(id=id, token_hash=_hash(token), created_at=clock.now(), **values)
        audit.record("node_token.create", row.pk, after={"expiresAt": row.expires_at})
    return row, token


def revoke(token_id: str) -> None:
    """The token cannot be used any more. Raises NodeTokenNotFound; one that was used stays, and names its node."""
    with recording():
        row = NodeToken.objects.select_for_update().filter(pk=token_id).first()
        if row is None:
            raise NodeTokenNotFound(f"No token {token_id[:60]}.")
        if row.used_at is not None:
            raise NodeTokenEnded(f"Node {row.used_by} has joined with this token.")
        row.delete()
        audit.record("node_token.revoke", token_id)


def use(token: str, node_id: str) -> NodeToken:
    """The token is used up by this node when the caller's transaction commits. Raises BadNodeToken, NodeTokenEnded."""
    prefix, _, rest = token.partition("_")
    id = rest.partition("_")[0]
    row = NodeToken.objects.select_for_update().filter(pk=id).first() if prefix == "bhn" and len(id) == 8 else None
    if row is None or not hmac.compare_digest(row.token_hash, _hash(token)):
        raise BadNodeToken
    if row.used_at is not None:
        raise NodeTokenEnded(f"The token has been used, by node {row.used_by}. Make another: manage.py nodes token")
    if row.expires_at <= clock.now():
        raise NodeTokenEnded("The token has expired. Make another: manage.py nodes token")
    NodeToken.objects.filter(pk=row.pk).update(used_at=clock.now(), used_by=node_id)
    return row


def forget_old() -> int:
    """Delete tokens that ended a while ago. Returns how many."""
    return NodeToken.objects.filter(expires_at__lt=clock.now() - KEPT_FOR).delete()[0]


def _hash(token: str) -> str:
    return hmac.new(settings.BOILERHOUSE_KEY_PEPPER.encode(), token.encode(), hashlib.sha256).hexdigest()
