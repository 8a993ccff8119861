"""Request ids, one log line per request, and problem documents for API errors outside DRF."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import partial

import structlog
from django.http import HttpRequest, HttpResponse

from boilerhouse.core import context
from boilerhouse.core.ids import uuid7
from boilerhouse.core.text import printable_utf8
from boilerhouse.telemetry import tracing
from boilerhouse.telemetry.instruments import HTTP_REQUESTS, HTTP_SECONDS
from boilerhouse.web.waiting import Waiting

METHODS = frozenset(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
log = structlog.get_logger("boilerhouse.http")
_SAFE_ID = re.compile(r"^[A-Za-z0-9._-]{1,64}\Z")


def safe_request_id(request_id: str) -> str:
    """A client's request id if it is safe in logs, otherwise empty."""
    return request_id if _SAFE_ID.match(request_id) else ""


def _count(request: HttpRequest, status: int, seconds: float) -> None:
    """The pattern of the path, because paths contain tenants; unknown paths and methods are counted together."""
    route = _route(request)
    method = request.method if request.method in METHODS else "other"
    HTTP_REQUESTS.labels(method, route, str(status)).inc()
    HTTP_SECONDS.labels(route).observe(seconds)


def _shown_path(request: HttpRequest) -> str:
    """The path, without a login token."""
    match = request.resolver_match
    return _route(request) if match is not None and "token" in match.kwargs else request.path


def _route(request: HttpRequest) -> str:
    return f"/{request.resolver_match.route}" if request.resolver_match else "unknown"


def printable_pages(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Escape control characters in pages, because tenants' file names may contain them: our own text has none."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        if not response.streaming and response.get("Content-Type", "").startswith("text/html"):
            content = printable_utf8(response.content)
            if content is not response.content:
                response.content = content
        return response

    return middleware


def _note(request: HttpRequest, started: float, status: int, **more: str) -> None:
    """Count and log an answered request."""
    level, seconds = log.warning if status >= 500 else log.info, time.monotonic() - started
    ms = round(seconds * 1000, 1)
    _count(request, status, seconds)
    level("request", method=request.method, path=_shown_path(request), status=status, ms=ms, **more)


def _note_later(request: HttpRequest, request_id: str, actor: str, started: float, status: int, node: str) -> None:
    """The same when another node has answered, or has not."""
    with context.acting(actor, request_id):
        _note(request, started, status, node=node)


def request_context(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    def middleware(request: HttpRequest) -> HttpResponse:
        header = request.headers.get("X-Request-ID", "")
        resumed = getattr(request, "resumed", None)
        request_id = safe_request_id(header) or getattr(resumed, "request_id", "") or uuid7().hex
        request.request_id = request_id  # type: ignore[attr-defined]
        started = time.monotonic()
        carrier = getattr(resumed, "trace", None) or {"traceparent": request.headers.get("traceparent", "")}
        with context.acting("anonymous", request_id), tracing.span(f"HTTP {request.method}", carrier):
            response = get_response(request)
            tracing.note(**{"http.route": _route(request), "http.response.status_code": response.status_code})
            if isinstance(response, Waiting):
                response.trace = tracing.carrier()  # type: ignore[attr-defined]
                response.request_id = request_id  # type: ignore[attr-defined]
                response.asked_at = getattr(resumed, "asked_at", started)  # type: ignore[attr-defined]
                return response
            if hasattr(response, "other_node"):  # its status is not known before that node has answered
                response.note = partial(_note_later, request, request_id, context.actor(), started)  # type: ignore[attr-defined]
            elif not request.path_info.startswith("/static/"):
                _note(request, getattr(resumed, "asked_at", started), response.status_code)
        response["X-Request-ID"] = request_id
        return response

    return middleware
