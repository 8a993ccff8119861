"""Secrets of Standard Webhooks: random, kept encrypted, valid for a day after their replacement."""

from __future__ import annotations

import base64
import binascii
import secrets
from datetime import datetime, timedelta
from typing import Any

from boilerhouse.notifications.models import Target

PREFIX = "whsec_"
BYTES, LEAST_BYTES, MOST_BYTES = 32, 24, 64
"""Of a secret; the bounds are those of the specification."""
OLD_FOR = timedelta(days=1)
"""How long messages are also signed with the previous secret."""


def new_secret() -> str:
    return PREFIX + base64.b64encode(secrets.token_bytes(BYTES)).decode()


def is_valid(secret: str) -> bool:
    """Whether it is ``whsec_`` and 24 to 64 bytes in base64."""
    if not secret.startswith(PREFIX):
        return False
    try:
        decoded = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return False
    return LEAST_BYTES <= len(decoded) <= MOST_BYTES


def replaced(signing: list[dict[str, Any]], secret: str, now: datetime) -> list[dict[str, Any]]:
    """The stored secrets with this one first. The previous one is valid for ``OLD_FOR``."""
    if signing and signing[0]["secret"] == secret:
        return signing
    old = [{"secret": signing[0]["secret"], "until": (now + OLD_FOR).isoformat()}] if signing else []
    return [{"secret": secret, "until": None}, *old]


def valid(target: Target, now: datetime) -> list[str]:
    """The secrets with which a message is signed, the newest first."""
    return [
        entry["secret"]
        for entry in target.secret["signing"]
        if entry["until"] is None or datetime.fromisoformat(entry["until"]) > now
    ]
