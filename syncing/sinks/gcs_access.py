"""Access tokens of Google's service accounts, each for an hour.

An account proves itself by a short statement (JWT) that it signs with its private key. The key is never sent, and the
statement names the address that it is for, so it is worth nothing at another one.
"""

from __future__ import annotations

import json
import threading
import time
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from syncing.errors import ClockSkewed, SinkDenied, SinkStumbled, SinkThrottled, SyncFailed
from syncing.sinks import http_requests, refusals

SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
LIFETIME_S = 3600
RENEWED_BEFORE_S = 300
_BAD_TIME = "reasonable timeframe"
"""What Google says of a statement whose times are not those of its own clock."""


@dataclass(frozen=True, slots=True)
class Account:
    """A service account, and the address where it gets its tokens."""

    email: str
    key_id: str
    private_key: str = field(repr=False)
    token_url: str


_tokens: dict[Account, tuple[str, float]] = {}
_lock = threading.Lock()


def private_key(pem: str) -> RSAPrivateKey:
    """Raises ValueError for anything but an RSA key in PEM, without a passphrase."""
    try:
        key = load_pem_private_key(pem.encode(), None)
    except TypeError as error:  # it has a passphrase
        raise ValueError("the private key has a passphrase") from error
    if not isinstance(key, RSAPrivateKey):
        raise ValueError("not an RSA key")
    return key


def token(account: Account, deadline_s: int) -> str:
    """A token that is valid for some minutes at least. Raises SinkDenied, ClockSkewed, SinkUnreachable."""
    if cached := known_token(account):
        return cached
    value, seconds = _ask(account, deadline_s)
    with _lock:
        _tokens[account] = value, time.monotonic() + seconds - min(RENEWED_BEFORE_S, seconds / 2)
    return value


def known_token(account: Account) -> str:
    """The token from an earlier answer; empty if there is none that is still good."""
    with _lock:
        value, until = _tokens.get(account, ("", 0.0))
    return value if time.monotonic() < until else ""


def forget(account: Account, value: str) -> None:
    """Afterwards this token, which was refused, is not used again."""
    with _lock:
        if _tokens.get(account, ("", 0.0))[0] == value:
            del _tokens[account]


def _ask(account: Account, deadline_s: int) -> tuple[str, float]:
    answer = http_requests.send(
        http_requests.session(),
        "POST",
        account.token_url,
        deadline_s,
        where=account.token_url,
        data={"grant_type": GRANT, "assertion": _statement(account)},
    )
    try:
        document: Any = json.loads(answer.content)
        if answer.ok:
            return str(document["access_token"]), float(document.get("expires_in") or LIFETIME_S)
        words = refusals.words(f"{document['error']}: {document.get('error_description') or ''}".rstrip(": "))
    except (ValueError, KeyError, TypeError, AttributeError):
        words = ""  # no answer of such a server, and not repeated
    raise _refusal(account, answer.status_code, words, refusals.after_s(answer.headers.get("Retry-After")))


def _refusal(account: Account, status: int, words: str, after_s: float) -> SyncFailed:
    detail = f"{account.token_url} answered {status} to the service account {account.email}"
    detail = f"{detail}: {words.replace(account.private_key, '…')}" if words else f"{detail}."
    if _BAD_TIME in words:
        return ClockSkewed(f"{detail} Set this machine's clock.")
    if status in (429, 503):
        return SinkThrottled(detail, after_s)
    return SinkStumbled(detail) if status >= 500 else SinkDenied(detail)


def _statement(account: Account) -> str:
    now = int(time.time())
    claims = {
        "iss": account.email,
        "scope": SCOPE,
        "aud": account.token_url,
        "iat": now,
        "exp": now + LIFETIME_S,
    }
    header = {"alg": "RS256", "typ": "JWT", "kid": account.key_id}
    signed = b".".join(_encoded(json.dumps(part).encode()) for part in (header, claims))
    signature = private_key(account.private_key).sign(signed, PKCS1v15(), hashes.SHA256())
    return b".".join([signed, _encoded(signature)]).decode()


def _encoded(content: bytes) -> bytes:
    return urlsafe_b64encode(content).rstrip(b"=")
