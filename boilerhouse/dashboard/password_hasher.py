"""Passwords are hashed as Django does, but not before everything else on the machine."""

from __future__ import annotations

from django.contrib.auth.hashers import PBKDF2PasswordHasher

from boilerhouse.process import urgency


class Hasher(PBKDF2PasswordHasher):
    """Half a second of a processor, and strangers may ask for it: what is urgent for the web process is not this."""

    def encode(self, password: str, salt: str, iterations: int | None = None) -> str:
        with urgency.ordinary():
            return super().encode(password, salt, iterations)
