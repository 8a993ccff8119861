"""Django's password hashing with ordinary priority."""

from __future__ import annotations

from django.contrib.auth.hashers import PBKDF2PasswordHasher

from boilerhouse.process import priority


class Hasher(PBKDF2PasswordHasher):
    """Hashing takes half a second of a processor, and anyone can cause it, so it must not have the web process's
    priority."""

    def encode(self, password: str, salt: str, iterations: int | None = None) -> str:
        with priority.ordinary():
            return super().encode(password, salt, iterations)
