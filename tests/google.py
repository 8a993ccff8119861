"""Google's side of a service account, before a fake of Google Cloud Storage that asks for no credentials itself."""

from __future__ import annotations

import base64
import json
import secrets
import threading
import time
from urllib.parse import parse_qs

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.providers import Answer, Asked, Behaviour

EMAIL = "boilerhouse@tests.iam.gserviceaccount.com"


def private_key(key: rsa.RSAPrivateKey | None = None) -> str:
    """This key in PEM, or a new one."""
    key = key or rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


class ServiceAccount(Behaviour):
    """Gives tokens to who proves to be the account, and refuses every request without one."""

    def __init__(self) -> None:
        self.key, self.key_id = rsa.generate_private_key(public_exponent=65537, key_size=2048), "key-1"
        self.audience = ""
        """The address for which a statement must be made; the tests' server sets it."""
        self.lifetime_s, self.ahead_s, self.tokens, self.asked = 3600, 0.0, set[str](), 0
        self._lock = threading.Lock()

    def document(self, **over: str) -> str:
        """The key as Google's console gives it."""
        whole = {
            "type": "service_account",
            "project_id": "tests",
            "private_key_id": self.key_id,
            "private_key": private_key(self.key),
            "client_email": EMAIL,
            "client_id": "1",
            "token_uri": "https://oauth2.googleapis.com/token",
            "universe_domain": "googleapis.com",
        }
        return json.dumps({**whole, **over}, indent=2)

    def refuse(self, asked: Asked) -> Answer | None:
        if asked.path == "/token":
            return self._token(asked)
        with self._lock:
            is_known = asked.headers.get("authorization", "").removeprefix("Bearer ") in self.tokens
        return None if is_known else refusal(401, "Invalid Credentials", "authError")

    def revoke(self) -> None:
        """Afterwards no token that was given is good."""
        with self._lock:
            self.tokens.clear()

    def _token(self, asked: Asked) -> Answer:
        fields = parse_qs(asked.body.decode())
        if fields.get("grant_type") != ["urn:ietf:params:oauth:grant-type:jwt-bearer"]:
            return _json(400, {"error": "unsupported_grant_type"})
        if problem := self._problem(fields["assertion"][0]):
            return _json(400, {"error": "invalid_grant", "error_description": problem})
        token = f"ya29.{secrets.token_hex(20)}"
        with self._lock:
            self.tokens.add(token)
            self.asked += 1
        return _json(200, {"access_token": token, "expires_in": self.lifetime_s, "token_type": "Bearer"})

    def _problem(self, statement: str) -> str:
        """What is wrong with a statement; empty if nothing is."""
        signed, _, signature = statement.rpartition(".")
        header, claims = (json.loads(_decoded(part)) for part in signed.split("."))
        try:
            self.key.public_key().verify(_decoded(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            return "Invalid JWT Signature."
        if header["kid"] != self.key_id or claims["iss"] != EMAIL or claims["aud"] != self.audience:
            return f"Invalid audience or account: {claims}"
        now = time.time() + self.ahead_s
        if not now - 3700 < claims["iat"] <= now + 60 or claims["exp"] > claims["iat"] + 3600:
            return "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe."
        return "" if "devstorage.read_write" in claims["scope"] else "Invalid OAuth scope."


def refusal(status: int, message: str, reason: str) -> Answer:
    """An error in the form of Google's JSON API."""
    errors = [{"domain": "global", "reason": reason, "message": message}]
    return _json(status, {"error": {"code": status, "message": message, "errors": errors}})


def _json(status: int, document: object) -> Answer:
    return Answer(status, [("Content-Type", "application/json; charset=UTF-8")], json.dumps(document).encode())


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
