"""What every page's shell shows."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest

from boilerhouse.core.processes import node

THEMES = ("auto", "light", "dark")


def shell(request: HttpRequest) -> dict[str, Any]:
    theme = request.COOKIES.get("theme", "auto")
    return {
        "version": settings.VERSION,
        "node": node(),
        "theme": theme if theme in THEMES else "auto",
        "themes": THEMES,
    }
