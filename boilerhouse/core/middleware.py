"""Request ids, one log line per request, and problem documents for the API where DRF is not asked."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import structlog
from django.http import HttpRequest, HttpResponse

from boilerhouse.core import context
from boilerhouse.core.ids import uuid7
from boilerhouse.core.waiting import Waiting

log = structlog.get_logger("boilerhouse.http")
_SAFE_ID = re.compile(r"^[A-Za-z0-9._-]{1,64}\Z")


def safe_request_id(given: str) -> str:
    """A client's request id if it may stand in logs as it is, else nothing."""
    return given if _SAFE_ID.match(given) else ""


def request_context(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    def middleware(request: HttpRequest) -> HttpResponse:
        given = request.headers.get("X-Request-ID", "")
        resumed = getattr(request, "resumed", None)
        request_id = safe_request_id(given) or getattr(resumed, "request_id", "") or uuid7().hex
        request.request_id = request_id  # type: ignore[attr-defined]
        started = time.monotonic()
        with context.acting("anonymous", request_id):
            response = get_response(request)
            if isinstance(response, Waiting):
                response.request_id = request_id  # type: ignore[attr-defined]
                return response
            level = log.warning if response.status_code >= 500 else log.info
            if not request.path.startswith("/static/"):
                ms = round((time.monotonic() - started) * 1000, 1)
                level("request", method=request.method, path=request.path, status=response.status_code, ms=ms)
        response["X-Request-ID"] = request_id
        return response

    return middleware
