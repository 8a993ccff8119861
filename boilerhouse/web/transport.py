"""How a request arrived: with TLS through the proxy, without TLS, or as a probe from this machine.

A probe is a GET of health or metrics that this machine sends directly to the process: from a loopback address to a
loopback name, without any header that a proxy adds. It needs neither TLS nor the public name. A request that came
through a proxy is never a probe, whatever host, address or scheme it claims.
"""

from __future__ import annotations

import io
import ipaddress
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.request import split_domain_port
from django.shortcuts import render
from django.utils.http import is_same_domain, url_has_allowed_host_and_scheme

from boilerhouse.web.connections import forwarded
from boilerhouse.web.problems import is_api, problem

PROBES = frozenset(["/health", "/metrics", "/api/v1/health", "/api/v1/health/ready", "/api/v1/metrics"])
PROXY_HEADERS = (
    "HTTP_FORWARDED", "HTTP_VIA", "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_HOST", "HTTP_X_FORWARDED_PORT",
    "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_SCHEME", "HTTP_X_FORWARDED_SERVER", "HTTP_X_REAL_IP",
)  # fmt: skip
SENT_TO_TLS = "sent-to-tls"
"""A cookie set with a redirect to https. It is Secure, so a request that has it used TLS."""
REDIRECT_S = 60

NO_PROTO = (
    "BOILERHOUSE_HTTPS is true, but this request has no X-Forwarded-Proto header. Configure the proxy that"
    " terminates TLS to send it (nginx: proxy_set_header X-Forwarded-Proto $scheme;), and open the proxy's https"
    " address. Without a TLS proxy, set BOILERHOUSE_HTTPS=false."
)
WRONG_PROTO = (
    "Your browser uses TLS, but the proxy sends X-Forwarded-Proto: http. Usually a second proxy, between the one"
    " that terminates TLS and Boilerhouse, overwrites the header. Configure it to pass the header on unchanged."
)
PLAIN = "This request used plain http (X-Forwarded-Proto: http), but BOILERHOUSE_HTTPS is true. Use https."


def is_probe(request: HttpRequest) -> bool:
    """Whether this machine itself requests health or metrics, bypassing any proxy."""
    meta = request.META
    return (
        request.method in ("GET", "HEAD")
        and request.path_info in PROBES
        and not any(name in meta for name in PROXY_HEADERS)
        and _is_loopback(meta.get("REMOTE_ADDR", ""))
        and _is_loopback(split_domain_port(meta.get("HTTP_HOST", ""))[0])
    )


def over_tls(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """With BOILERHOUSE_HTTPS, refuse requests without TLS, except probes. Pages are redirected to https, once."""

    def middleware(request: HttpRequest) -> HttpResponse:
        if is_probe(request):
            request.META["HTTP_HOST"] = _a_name_of_ours(request.META["HTTP_HOST"])
        elif settings.BOILERHOUSE_HTTPS and not request.is_secure():
            return _without_tls(request)
        _see_past_the_proxy(request.META)
        return get_response(request)

    return middleware


def why_not_ours(origin: str, request: HttpRequest) -> str:
    """Why a page at this origin is not one of ours, or an empty string; ``request`` is the request that names it."""
    try:
        own = f"{request.scheme}://{request.get_host()}"
    except DisallowedHost:
        own = ""
    if origin.lower() == own.lower() or _is_trusted(origin):
        return ""
    return _words_about(origin[:200], own)


def origin_of(url: str) -> str:
    """``https://host:port`` of a URL, or an empty string."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.netloc}" if parts.scheme and parts.netloc else ""


def path_of_ours(url: str, request: HttpRequest) -> str:
    """Path and query of one of our URLs, to which a redirect is safe; empty for any other URL."""
    if (origin := origin_of(url)) and not why_not_ours(origin, request):
        url = urlunsplit(("", "", *urlsplit(url)[2:]))
    return url if url.startswith("/") and url_has_allowed_host_and_scheme(url, None) else ""


def as_request(scope: dict[str, Any]) -> HttpRequest:
    """The part of a WebSocket handshake that Django needs for host, scheme and origin."""
    return ASGIRequest({**scope, "method": "GET", "scheme": "http"}, io.BytesIO())


def _see_past_the_proxy(meta: dict[str, Any]) -> None:
    """Take a client's address from a trusted proxy, and from nobody else.

    Logins are throttled by address: without this, all clients of a proxy would share one.
    """
    if (peer := meta.get("REMOTE_ADDR", "")) and (chain := meta.get("HTTP_X_FORWARDED_FOR")):
        meta["REMOTE_ADDR"] = forwarded(peer, chain)


def _without_tls(request: HttpRequest) -> HttpResponse:
    protocol = request.META.get("HTTP_X_FORWARDED_PROTO")
    detail = NO_PROTO if protocol is None else PLAIN
    if is_api(request):  # a redirect would send the key again without TLS and turn a POST into a GET
        return problem(403, "tls_required", detail)
    if SENT_TO_TLS in request.COOKIES:
        detail = WRONG_PROTO
    elif protocol is not None and request.method in ("GET", "HEAD"):
        answer = HttpResponseRedirect(f"https://{request.get_host()}{request.get_full_path()}")
        path = settings.SESSION_COOKIE_PATH
        answer.set_cookie(SENT_TO_TLS, "1", max_age=REDIRECT_S, path=path, secure=True, httponly=True, samesite="Lax")
        return answer
    return render(request, "refused.html", {"title": "HTTPS required", "detail": detail}, status=403)


def _words_about(origin: str, own: str) -> str:
    if not own:
        return (
            f"The browser is at {origin}, but the host name that the proxy passed on is not in"
            " BOILERHOUSE_ALLOWED_HOSTS."
        )
    observation = f"The browser says that it is at {origin}, but this request arrived as {own}."
    add = f"add it to BOILERHOUSE_TRUSTED_ORIGINS (now: {', '.join(settings.CSRF_TRUSTED_ORIGINS) or 'empty'})"
    scheme, _, place = origin.partition("://")
    if place and place == own.partition("://")[2] and scheme == "https":
        todo = "Set BOILERHOUSE_HTTPS=true and configure the proxy to send X-Forwarded-Proto"
        return f"{observation} {todo}; or, if that is the address at which you open Boilerhouse, {add}."
    todo = "configure the proxy to pass on the host with its port (nginx: proxy_set_header Host $http_host;), or"
    return f"{observation} If the first is the address at which you open Boilerhouse, {todo} {add}."


def _is_trusted(origin: str) -> bool:
    """Whether BOILERHOUSE_TRUSTED_ORIGINS contains it, as Django matches forms: exactly, or
    ``https://*.example.com``."""
    if origin in settings.CSRF_TRUSTED_ORIGINS:
        return True
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return any(
        trusted.scheme == parts.scheme and is_same_domain(parts.netloc, trusted.netloc.lstrip("*"))
        for trusted in map(urlsplit, settings.CSRF_TRUSTED_ORIGINS)
        if "*" in trusted.netloc
    )


def _a_name_of_ours(host: str) -> str:
    """Whether BOILERHOUSE_ALLOWED_HOSTS contains this host name."""
    for name in settings.ALLOWED_HOSTS:
        if name != "*":
            return str(name).lstrip(".")
    return host


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
