"""Requirements of every WebSocket before it is accepted: TLS if BOILERHOUSE_HTTPS is set, and an allowed origin."""

from __future__ import annotations

import json
from typing import Any

import structlog
from channels.security.websocket import WebsocketDenier
from django.conf import settings

from boilerhouse.web import transport

log = structlog.get_logger(__name__)

FORBIDDEN = 4403


class OverTls:
    """An ASGI application that accepts no socket without TLS if BOILERHOUSE_HTTPS is true."""

    def __init__(self, application: Any) -> None:
        self.application = application

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if not settings.BOILERHOUSE_HTTPS or transport.as_request(scope).is_secure():
            await self.application(scope, receive, send)
        elif (await receive())["type"] == "websocket.connect":
            has_header = any(name == b"x-forwarded-proto" for name, _ in scope["headers"])
            detail = transport.PLAIN if has_header else transport.NO_PROTO
            await send({"type": "websocket.accept"})  # only an accepted socket can be closed with one of our codes
            text = json.dumps({"type": "error", "code": FORBIDDEN, "detail": detail})
            await send({"type": "websocket.send", "text": text})
            await send({"type": "websocket.close", "code": FORBIDDEN, "reason": "This needs TLS."})


class OurPagesOnly:
    """An ASGI application that accepts sockets only from our own pages, because browsers send cookies with requests
    from any site.

    Another port of the same host is another origin: a tenant's own pages may be there.
    """

    def __init__(self, application: Any) -> None:
        self.application = application

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = transport.as_request(scope)
        origin = request.META.get("HTTP_ORIGIN", "")
        why = transport.why_not_ours(origin, request) if origin else "The request has no Origin header."
        if not why:
            await self.application(scope, receive, send)
            return
        log.warning("socket refused", origin=origin[:200], why=why)
        await WebsocketDenier()(scope, receive, send)
