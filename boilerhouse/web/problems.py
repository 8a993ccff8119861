"""Errors as RFC 9457 problem documents: one table maps error families to statuses."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import structlog
from django.core.exceptions import DisallowedHost, PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.csrf import csrf_exempt
from rest_framework import exceptions, status
from rest_framework.renderers import JSONRenderer

from boilerhouse.core import context
from boilerhouse.core.errors import (
    BoilerhouseError,
    Conflict,
    Elsewhere,
    Failed,
    FieldError,
    Forbidden,
    Full,
    Internal,
    Invalid,
    NotFound,
    PreconditionFailed,
    TimedOut,
    TooMany,
    TooSlow,
    Unavailable,
)
from boilerhouse.core.sqlite_gate.base import DatabaseBusy
from boilerhouse.process.outage import DATABASE_LOST
from boilerhouse.web.idempotency import Replay
from boilerhouse.web.rendering import AsciiRenderer
from boilerhouse.web.request_heads import shown_path

log = structlog.get_logger(__name__)

STATUS: dict[type[BoilerhouseError], int] = {
    Forbidden: 403,
    NotFound: 404,
    TooSlow: 408,
    Conflict: 409,
    PreconditionFailed: 412,
    Invalid: 422,
    TooMany: 429,
    Failed: 502,
    Unavailable: 503,
    TimedOut: 504,
    Full: 507,
    Internal: 500,
}


MAX_WORDS, MAX_ERRORS = 500, 100
"""A response does not repeat a long request."""


_TITLES = {413: "Request Entity Too Large", 422: "Unprocessable Entity"}
"""Python 3.13 renames these. Answers of one deployment do not change with its Python."""


def title_of(status_code: int) -> str:
    """The title of a problem with this HTTP status."""
    return _TITLES.get(status_code) or HTTPStatus(status_code).phrase


def problem(
    status_code: int,
    code: str,
    detail: str,
    errors: list[dict[str, str]] | None = None,
    headers: dict[str, str] | None = None,
    more: dict[str, Any] | None = None,
) -> HttpResponse:
    content = {**document(status_code, code, detail, context.request_id(), errors), **(more or {})}
    renderer = AsciiRenderer() if more else JSONRenderer()
    return HttpResponse(
        renderer.render(content), status=status_code, content_type="application/problem+json", headers=headers
    )


def document(
    status_code: int, code: str, detail: str, request_id: str, errors: list[dict[str, str]] | None = None
) -> dict[str, Any]:
    """The content of a problem document."""
    cut_errors = [{name: text[:MAX_WORDS] for name, text in error.items()} for error in (errors or [])[:MAX_ERRORS]]
    return {
        "type": f"urn:boilerhouse:problem:{code}",
        "title": title_of(status_code),
        "status": status_code,
        "detail": detail[:MAX_WORDS],
        "code": code,
        "requestId": request_id,
        "errors": cut_errors,
    }


def naming_node(response: HttpResponse, error: Exception) -> HttpResponse:
    """The response. If what was asked for is on another node, the server passes the request on to that, if it can."""
    if isinstance(error, Elsewhere):
        response.other_node = error.node  # type: ignore[attr-defined]
    return response


def status_of(error: BoilerhouseError) -> int:
    """The HTTP status of a service's error."""
    return next((STATUS[family] for family in type(error).__mro__ if family in STATUS), 500)


def from_error(error: BoilerhouseError, **more: Any) -> HttpResponse:
    """The response for a service's error; ``more`` are additional members of its document."""
    code = status_of(error)
    errors = (
        [{"pointer": e.pointer, "detail": e.detail, "code": e.code} for e in error.errors]
        if isinstance(error, Invalid)
        else None
    )
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after is not None else None
    return naming_node(problem(code, error.code, error.detail, errors, headers, more), error)


def field_errors(detail: Any) -> list[FieldError]:
    """The errors of a serializer, each with its pointer."""
    return [FieldError(item["pointer"], item["detail"], item["code"]) for item in pointers(detail)]


def pointers(detail: Any, pointer: str = "") -> list[dict[str, str]]:
    if isinstance(detail, dict):
        results = []
        for name, inner in detail.items():
            escaped = str(name).replace("~", "~0").replace("/", "~1")
            results += pointers(inner, pointer if name == "non_field_errors" else f"{pointer}/{escaped}")
        return results
    if isinstance(detail, list):
        results = []
        for index, inner in enumerate(detail):
            nested = isinstance(inner, dict | list)
            if not (nested and not inner):
                results += pointers(inner, f"{pointer}/{index}" if nested else pointer)
        return results
    return [{"pointer": pointer, "detail": str(detail), "code": str(getattr(detail, "code", "invalid"))}]


def _sentence(errors: list[dict[str, str]]) -> str:
    return "; ".join(f"{e['pointer']}: {e['detail']}" if e["pointer"] else e["detail"] for e in errors)


def handle(error: Exception, _context: Any) -> HttpResponse | None:
    """DRF's exception handler; None lets Django answer 500 through ``server_error``."""
    if isinstance(error, Replay):
        return error.response
    if isinstance(error, BoilerhouseError):
        return from_error(error)
    if isinstance(error, Http404 | exceptions.NotFound):
        return problem(404, "not_found", str(error) or "Not found.")
    if isinstance(error, exceptions.ValidationError):
        errors = pointers(error.detail)
        return problem(422, "invalid", _sentence(errors), errors)
    if isinstance(error, exceptions.ParseError):
        return problem(status.HTTP_400_BAD_REQUEST, "malformed", str(error.detail))
    if isinstance(error, PermissionDenied):
        return problem(403, "forbidden", str(error) or "The role of this key does not allow this operation.")
    if isinstance(error, DatabaseBusy):
        log.error("database busy")
        return problem(503, "database_busy", f"{error} Try again.", headers={"Retry-After": "2"})
    if isinstance(error, DATABASE_LOST):
        log.error("database unavailable", error=type(error).__name__)
        return problem(503, "database_unavailable", "The database cannot be reached.", headers={"Retry-After": "2"})
    if isinstance(error, exceptions.APIException):
        headers = {}
        if getattr(error, "auth_header", None):
            headers["WWW-Authenticate"] = error.auth_header  # type: ignore[attr-defined]
        if getattr(error, "wait", None):
            headers["Retry-After"] = str(int(error.wait))  # type: ignore[attr-defined]
        code = str(getattr(error, "default_code", "error"))
        return problem(error.status_code, code, str(error.detail), headers=headers)
    return None


def is_api(request: HttpRequest) -> bool:
    return request.path_info.startswith("/api/")


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    if is_api(request):
        return problem(404, "not_found", f"No such route: {request.path}.")
    from django.views.defaults import page_not_found

    return page_not_found(request, exception or Http404())


@csrf_exempt  # there is no form
def nowhere(request: HttpRequest) -> HttpResponse:
    """The view of every path below /api/ without another view, whatever the method."""
    return not_found(request)


nowhere.answers_nothing = True  # type: ignore[attr-defined]  # no body is read for it (core.heads)


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Errors of Django itself before any view: an unknown host name, too many fields …"""
    detail = f"The request was refused ({type(exception).__name__})."
    if isinstance(exception, DisallowedHost):
        host = request.META.get("HTTP_HOST", "")[:100]
        detail = (
            f"The request names the host {host!r}, which is not in BOILERHOUSE_ALLOWED_HOSTS. Open Boilerhouse"
            " at a host name in that list, or add this one. From the node itself, health and metrics are also"
            " available at 127.0.0.1."
        )
    if is_api(request):
        return problem(400, "malformed", detail)
    return render(request, "refused.html", {"title": "Bad request", "detail": detail}, status=400)


def server_error(request: HttpRequest) -> HttpResponse:
    log.error("unhandled error", path=shown_path(request.path_info), exc_info=True)
    if is_api(request):
        return problem(500, "internal", "Internal error. Search the log for the request id.")
    from django.views.defaults import server_error as page

    return page(request)
