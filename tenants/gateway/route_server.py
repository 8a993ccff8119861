"""What nginx asks: a socket of the file system, apart from the public listener, so nobody outside can reach it.

One request per connection, with a head and no body. Several threads, and several web processes, may accept from it.
"""

from __future__ import annotations

import contextlib
import html
import json
import os
import socket
import threading
import time
from http import HTTPStatus
from uuid import uuid4

import structlog
from django.conf import settings
from django.db import Error, close_old_connections

from boilerhouse.web import problems
from tenants.gateway import passes, routes
from tenants.gateway.routes import Credential, Refusal, Route

log = structlog.get_logger(__name__)
THREADS = 4
MAX_HEAD_BYTES = 16_384
ASK_S = 2.0
"""How long nginx, the only client, may take to send a head or to read an answer."""
Headers = dict[str, str]
PASSED = "BOILERHOUSE_GATEWAY_FD"
"""The descriptor of the listening socket that a web process inherits, as its other one; it outlives the process."""


def serve_if_passed() -> None:
    """Answer nginx, if this process has inherited its socket."""
    if number := os.environ.pop(PASSED, ""):
        serve(socket.socket(fileno=int(number)))


def serve(listening: socket.socket, threads: int = THREADS) -> None:
    """Answer in threads of their own until the socket is closed."""
    for number in range(threads):
        threading.Thread(target=_serve, args=(listening,), name=f"gateway-{number}", daemon=True).start()


def _serve(listening: socket.socket) -> None:
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            if listening.fileno() < 0:
                return
            time.sleep(0.1)  # no descriptor is free
            continue
        with connection, contextlib.suppress(OSError):  # nginx has left
            connection.settimeout(ASK_S)
            if head := _receive(connection):
                connection.sendall(_answer(*_parsed(head)))


def _receive(connection: socket.socket) -> bytes:
    """The whole head; empty if it does not come."""
    head = b""
    while b"\r\n\r\n" not in head:
        piece = connection.recv(MAX_HEAD_BYTES)
        if not piece or len(head) > MAX_HEAD_BYTES:
            return b""
        head += piece
    return head


def _parsed(head: bytes) -> tuple[str, Headers]:
    """The path and the headers, by their names in lower case."""
    first, *lines = head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    words = first.split(" ")
    pairs = (line.partition(":") for line in lines)
    path = words[1].partition("?")[0] if len(words) > 1 else ""
    return path, {name.lower(): value.strip() for name, _, value in pairs}


def _answer(path: str, headers: Headers) -> bytes:
    close_old_connections()
    try:
        match path:
            case "/route":
                return _route(headers)
            case "/open":
                return _open(headers)
            case _:
                return _refusal(routes.BY_CODE.get(headers.get("x-boilerhouse-code", ""), routes.UNAVAILABLE), headers)
    except Error as error:  # the database is away: nginx tells the client to ask again
        log.warning("gateway asked without a database", error=str(error))
    except Exception:  # it would end this thread, and with the last one the gateway
        log.exception("gateway question failed", path=path)
    return _response(500, {}, b"")


def _route(headers: Headers) -> bytes:
    """200 with the target, or 401 or 403 with a code: nginx knows no other answers to ``auth_request``."""
    credential = Credential(headers.get("x-boilerhouse-key", ""), headers.get("x-boilerhouse-session", ""))
    decided = routes.decide(headers.get("x-boilerhouse-host", ""), credential)
    if isinstance(decided, Route):
        return _response(200, {"X-Boilerhouse-Target": decided.target}, b"")
    return _response(403, {"X-Boilerhouse-Code": decided.code}, b"")


def _open(headers: Headers) -> bytes:
    """Exchange a link for the cookie of its host name."""
    granted = routes.exchange(headers.get("x-boilerhouse-host", ""), headers.get("x-boilerhouse-token", ""))
    if granted is None:
        return _refusal(routes.BAD_CREDENTIAL, headers)
    attributes = "; Path=/; HttpOnly; SameSite=Lax" + ("; Secure" if settings.BOILERHOUSE_GATEWAY_HTTPS else "")
    lasts = max(1, granted.expires_at - int(time.time()))
    cookie = f"{cookie_name()}={passes.sign(granted)}{attributes}; Max-Age={lasts}"
    return _response(303, {"Location": "/", "Set-Cookie": cookie, "Referrer-Policy": "no-referrer"}, b"")


def cookie_name() -> str:
    """With TLS, a name that no other host of the domain can set."""
    return "__Host-bh_gateway" if settings.BOILERHOUSE_GATEWAY_HTTPS else "bh_gateway"


def _refusal(refusal: Refusal, headers: Headers) -> bytes:
    more = {} if refusal.retry_after_s is None else {"Retry-After": str(refusal.retry_after_s)}
    title = HTTPStatus(refusal.status).phrase
    if "text/html" in headers.get("accept", ""):
        words = html.escape(refusal.detail)
        page = f"<!doctype html><meta charset=utf-8><title>{title}</title><h1>{title}</h1><p>{words}</p>\n"
        return _response(refusal.status, {**more, "Content-Type": "text/html; charset=utf-8"}, page.encode())
    body = problem(refusal, uuid4().hex).encode()
    return _response(refusal.status, {**more, "Content-Type": "application/problem+json"}, body)


def problem(refusal: Refusal, request_id: str) -> str:
    """The problem document of a refusal. nginx answers two of them from its configuration."""
    return json.dumps(problems.document(refusal.status, refusal.code, refusal.detail, request_id))


def _response(status: int, headers: Headers, body: bytes) -> bytes:
    """Answers other than routes are kept by nobody."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", "Connection: close", f"Content-Length: {len(body)}"]
    if "X-Boilerhouse-Target" not in headers and "X-Boilerhouse-Code" not in headers:
        lines.append("Cache-Control: no-store")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
