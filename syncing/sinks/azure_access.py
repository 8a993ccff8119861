"""Signatures of requests to Azure Storage by an account's key (Shared Key)."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from urllib.parse import unquote, urlsplit

VERSION = "2023-11-03"
_SIGNED = (
    "content-encoding", "content-language", "content-length", "content-md5", "content-type", "date",
    "if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range",
)  # fmt: skip


def signed(
    account: str, key: str, method: str, url: str, params: Mapping[str, str], headers: Mapping[str, str], size: int
) -> dict[str, str]:
    """The headers with date, version and signature; ``url`` has no query, ``size`` is the content's in bytes."""
    whole = {
        **{name.lower(): value for name, value in headers.items()},
        "x-ms-date": format_datetime(datetime.now(UTC), usegmt=True),
        "x-ms-version": VERSION,
    }
    standard = {**whole, "content-length": str(size) if size else ""}
    own = sorted(name for name in whole if name.startswith("x-ms-"))
    words = [
        method,
        *(standard.get(name, "") for name in _SIGNED),
        *(f"{name}:{whole[name]}" for name in own),
        f"/{account}{urlsplit(url).path}",
        *(f"{name}:{params[name]}" for name in sorted(params)),
    ]
    digest = hmac.digest(base64.b64decode(key), "\n".join(words).encode(), hashlib.sha256)
    return {**whole, "authorization": f"SharedKey {account}:{base64.b64encode(digest).decode()}"}


def is_key(text: str) -> bool:
    """Whether it can be an account's key: base64 of something."""
    try:
        return len(base64.b64decode(text, validate=True)) >= 16
    except ValueError:
        return False


def name_of(text: str, encoded: str | None) -> str:
    """A name in a listing, which is percent-encoded where XML could not hold it."""
    return unquote(text) if encoded == "true" else text
