"""Sessions of browsers in the database, each with its user, so that they can be listed and ended."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore as DatabaseSessions
from django.utils import timezone
from django.utils.dateparse import parse_datetime

SEEN_EVERY = timedelta(minutes=1)
SIGN_IN = "sign_in"
"""The key of what the session remembers of its sign-in; it survives a change of the session's own key."""


class SessionStore(DatabaseSessions):
    """Django's, with our model. A session that is used is marked as seen, once a minute."""

    @classmethod
    def get_model_class(cls) -> Any:
        from boilerhouse.core.models import Session

        return Session

    def load(self) -> dict[str, Any]:
        row = self._get_session_from_db()  # type: ignore[attr-defined]
        if row is None:
            return {}
        now = timezone.now()
        if row.seen_at < now - SEEN_EVERY:
            self.get_model_class().objects.filter(pk=row.pk).update(seen_at=now)
        data: dict[str, Any] = self.decode(row.session_data)
        return data

    def create_model_instance(self, data: dict[str, Any]) -> Any:
        return _describe(super().create_model_instance(data), data)

    async def acreate_model_instance(self, data: dict[str, Any]) -> Any:
        return _describe(await super().acreate_model_instance(data), data)


def _describe(row: Any, data: dict[str, Any]) -> Any:
    """Set the columns of the row from what the session contains."""
    sign_in = data.get(SIGN_IN, {})
    row.user_id = data.get(SESSION_KEY)
    row.started_at = parse_datetime(sign_in.get("at", "")) or timezone.now()
    row.address, row.agent = sign_in.get("address", ""), sign_in.get("agent", "")
    return row


def remember_sign_in(session: Any, *, address: str, agent: str) -> None:
    """Record where the user of the session signed in."""
    session[SIGN_IN] = {"at": timezone.now().isoformat(), "address": address[:64], "agent": agent[:300]}
