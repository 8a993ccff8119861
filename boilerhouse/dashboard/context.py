"""What every page's shell shows."""

from __future__ import annotations

import socket
from typing import Any

from django.conf import settings
from django.http import HttpRequest

THEMES = ("auto", "light", "dark")


def shell(request: HttpRequest) -> dict[str, Any]:
    theme = request.COOKIES.get("theme", "auto")
    return {
        "version": settings.VERSION,
        "node": socket.gethostname(),
        "theme": theme if theme in THEMES else "auto",
        "themes": THEMES,
    }
