"""The time zone of a page's reader.

Browsers tell their zone in a cookie (``static/app.js``). It counts if the reader has chosen local times; days and
ranges are then those of the reader, and otherwise UTC.
"""

from __future__ import annotations

from datetime import UTC, tzinfo
from zoneinfo import ZoneInfo

from django.http import HttpRequest


def zone_of(request: HttpRequest) -> tzinfo:
    """The zone of the reader if local times are chosen and the browser has named a zone that exists; otherwise UTC."""
    if request.COOKIES.get("times") != "local":
        return UTC
    try:
        return ZoneInfo(request.COOKIES.get("zone", ""))
    except (KeyError, ValueError, OSError):  # unknown, no name at all, or a directory
        return UTC
