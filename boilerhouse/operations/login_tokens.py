"""Tokens of one-time login links. A token becomes invalid when its user has logged in."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.tokens import PasswordResetTokenGenerator


class LoginTokens(PasswordResetTokenGenerator):
    """Django's tokens record logins with a resolution of a second, so a link created in the same second as a login
    would work twice."""

    key_salt = "boilerhouse.dashboard.login_tokens"

    def _make_hash_value(self, user: Any, timestamp: int) -> str:
        return f"{user.pk}{user.password}{user.last_login and user.last_login.isoformat()}{timestamp}"


login_tokens = LoginTokens()
