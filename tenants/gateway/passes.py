"""Passes: signed texts. Anyone who has one reaches one port of one tenant, until it expires or its key ends.

A link carries one; the cookie that a browser gets for it carries another. Each is valid only in its own role and for
its own host name, so a link in a log is no cookie, and a cookie of one host name opens no other.
"""

from __future__ import annotations

import base64
import hmac
import json
import time
from dataclasses import astuple, dataclass
from enum import StrEnum

from django.utils.crypto import salted_hmac

from tenants.gateway.hosts import Place

MAX_S = 7 * 24 * 3600
MAX_LENGTH = 600
"""nginx passes no longer one on."""
_SALT = "boilerhouse.gateway"


class Role(StrEnum):
    LINK = "link"
    COOKIE = "cookie"


@dataclass(frozen=True, slots=True)
class Pass:
    role: str
    port: int
    label: str
    expires_at: int
    """Unix time in seconds."""
    key_id: str
    """The key that made the link; the pass ends with it."""

    @property
    def place(self) -> Place:
        return Place(self.port, self.label)


def sign(granted: Pass) -> str:
    content = _encode(json.dumps(astuple(granted), separators=(",", ":")).encode())
    return f"{content}.{_signature(content)}"


def read(text: str, role: Role) -> Pass | None:
    """The pass that we signed for this role and that has not expired; otherwise None. The key is not looked at."""
    content, _, signature = text.partition(".")
    if len(text) > MAX_LENGTH or not text.isascii() or not hmac.compare_digest(_signature(content), signature):
        return None
    try:
        kind, port, label, expires_at, key_id = json.loads(
            base64.urlsafe_b64decode(content + "=" * (-len(content) % 4))
        )
    except (ValueError, TypeError):  # signed by another version
        return None
    granted = Pass(kind, port, label, expires_at, key_id)
    return granted if granted.role == role and granted.expires_at > time.time() else None


def _signature(content: str) -> str:
    return _encode(salted_hmac(_SALT, content, algorithm="sha256").digest())


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
