"""What links that log in once hold: it opens nothing any more once its user has logged in."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.tokens import PasswordResetTokenGenerator


class LoginTokens(PasswordResetTokenGenerator):
    """Django's, which counts logins by the second: a link that was made in the second of one would open twice."""

    key_salt = "boilerhouse.dashboard.login_tokens"

    def _make_hash_value(self, user: Any, timestamp: int) -> str:
        return f"{user.pk}{user.password}{user.last_login and user.last_login.isoformat()}{timestamp}"


login_tokens = LoginTokens()
