"""What is remembered of a sign-in, and how a browser is named to people."""

from __future__ import annotations

from typing import Any

from boilerhouse.core.sessions import remember_sign_in
from boilerhouse.web import connections

BROWSERS = (("Edg/", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("Chrome/", "Chrome"), ("Safari/", "Safari"))
"""In this order: each browser also names those after it."""
SYSTEMS = (
    ("Android", "Android"), ("iPhone", "iPhone"), ("iPad", "iPad"), ("Windows", "Windows"), ("Mac OS X", "macOS"),
    ("CrOS", "ChromeOS"), ("Linux", "Linux"),
)  # fmt: skip


def remember(sender: Any, request: Any, user: Any, **_: Any) -> None:
    """The receiver of Django's signal: the session records the client's address and what the browser says it is."""
    agent = request.META.get("HTTP_USER_AGENT", "").replace("\0", "")
    remember_sign_in(request.session, address=connections.client_of(request), agent=agent)


def device(agent: str) -> str:
    """``Firefox on Linux``, as far as the browser's own description tells."""
    browser = next((name for mark, name in BROWSERS if mark in agent), "")
    system = next((name for mark, name in SYSTEMS if mark in agent), "")
    if browser and system:
        return f"{browser} on {system}"
    return browser or system or agent[:60] or "Unknown browser"
