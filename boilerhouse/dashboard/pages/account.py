"""Settings: the user's own account, with its sessions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from boilerhouse.attention.words import count
from boilerhouse.core import users
from boilerhouse.core.models import Role
from boilerhouse.dashboard import sign_ins
from boilerhouse.dashboard.access import action, page

AT_MOST = 50


@dataclass(frozen=True, slots=True)
class ShownSession:
    handle: str
    device: str
    address: str
    started_at: datetime
    seen_at: datetime
    is_this: bool


def shown_sessions(user: Any, current: str | None) -> list[ShownSession]:
    """The user's sessions, last used first; ``current`` is the key of the one that asks."""
    return [
        ShownSession(
            users.handle_of(row.session_key), sign_ins.device(row.agent), row.address, row.started_at, row.seen_at,
            row.session_key == current,
        )
        for row in users.living_sessions(user)[:AT_MOST]
    ]  # fmt: skip


@page()
def account(request: HttpRequest) -> HttpResponse:
    sessions = shown_sessions(request.user, request.session.session_key)
    return render(request, "pages/account.html", {"section": "account", "sessions": sessions})


def _me(request: HttpRequest) -> int:
    assert request.user.pk is not None
    return request.user.pk


@action(Role.VIEWER)
def end_session(request: HttpRequest, handle: str) -> str:
    users.end_session(_me(request), handle)
    return "The session has ended."


@action(Role.VIEWER)
def end_others(request: HttpRequest) -> str:
    ended = users.end_sessions(_me(request), keep=request.session.session_key)
    return f"{count(ended, 'other session')} ended."
