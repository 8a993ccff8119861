"""``/ws/terminal/<container>``: a shell in a tenant's container, for a signed-in operator, only from our own pages.

The first message contains the reason and the size: ``{"reason": …, "columns": …, "rows": …}``. After that, bytes are
input and output; ``{"columns", "rows"}`` resizes. The last message is ``{"exitCode": …, "detail": …}``.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import aclosing, suppress
from typing import Any
from uuid import UUID

import structlog
from channels.auth import AuthMiddlewareStack
from channels.db import database_sync_to_async
from django.conf import settings

from boilerhouse.core import audit, context
from boilerhouse.core.errors import BoilerhouseError, Elsewhere, Invalid
from boilerhouse.core.events import recording
from boilerhouse.core.ids import uuid7
from boilerhouse.core.models import Role
from boilerhouse.dashboard.access import signed_in
from boilerhouse.process import budgets
from boilerhouse.web import connections, forwarding
from boilerhouse.web.handshakes import OurPagesOnly
from boilerhouse.web.streaming import Stalled, Writer, from_thread, serve
from pools.runtime.base import Terminal
from tenants import activity

log = structlog.get_logger(__name__)

FORBIDDEN, REFUSED, OVER = 4403, 4409, 4000
FIRST_WORD_S = 15.0
LOOK_EVERY_S = 2.0
MAX_SIDE = 500
MAX_TYPED_BYTES = 64 * 1024


class TerminalSocket:
    """An ASGI application for one path."""

    def __init__(self) -> None:
        self._with_session = OurPagesOnly(AuthMiddlewareStack(self._serve))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._with_session(scope, receive, send)

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        if (await receive())["type"] != "websocket.connect":
            return
        await send({"type": "websocket.accept"})
        user, session = scope["user"], scope["session"].session_key
        if not await database_sync_to_async(signed_in)(user, session, Role.OPERATOR):
            await _end(send, FORBIDDEN, "You need the operator role.")
            return
        connections.vouch_for(scope)
        container_id: UUID = scope["url_route"]["kwargs"]["container_id"]
        wish = await _first_word(receive)
        if wish is None:
            return
        began, request_id = time.monotonic(), uuid7().hex
        try:
            hold = budgets.streams.enter(budgets.user(user.get_username()), budgets.container(container_id))
            with hold.kept():
                terminal = await database_sync_to_async(_open)(user, request_id, container_id, wish)
        except BoilerhouseError as error:
            if isinstance(error, Elsewhere):
                first = {"type": "websocket.receive", "text": json.dumps(wish)}
                if await forwarding.pass_socket_to(error.node, scope, receive, send, first=first):
                    return
            await _end(send, REFUSED, _words(error))
            return
        writer = Writer(send, scope.get("boilerhouse.backlog"))

        async def is_allowed() -> bool:
            if not await database_sync_to_async(signed_in)(user, session, Role.OPERATOR):
                return False
            return bool(await database_sync_to_async(activity.is_claimed)(container_id))

        try:
            await serve(_show(terminal, writer, send, is_allowed), _type(receive, terminal))
        finally:
            hold.release()
            await asyncio.get_running_loop().run_in_executor(None, terminal.close)
            await database_sync_to_async(_note_end)(user, request_id, container_id, time.monotonic() - began)


def _open(user: Any, request_id: str, container_id: UUID, wish: dict[str, Any]) -> Terminal:
    with context.acting(f"user {user.get_username()}", request_id):
        reason = str(wish.get("reason", ""))
        return activity.open_terminal(container_id, reason, _side(wish, "columns", 80), _side(wish, "rows", 24))


def _note_end(user: Any, request_id: str, container_id: UUID, seconds: float) -> None:
    with context.acting(f"user {user.get_username()}", request_id), recording():
        audit.record("container.terminal_end", container_id, after={"seconds": round(seconds, 1)})


async def _first_word(receive: Any) -> dict[str, Any] | None:
    with suppress(TimeoutError):
        message = await asyncio.wait_for(receive(), FIRST_WORD_S)
        return _json(message) if message["type"] == "websocket.receive" else None
    return None


async def _show(terminal: Terminal, writer: Writer, send: Any, is_allowed: Any) -> None:
    """Send the shell's output, until it ends, the time is over, or the user loses access."""
    began = checked = time.monotonic()
    try:
        async with aclosing(from_thread(terminal, LOOK_EVERY_S)) as chunks:
            async for chunk in chunks:
                if chunk:
                    await writer.write({"type": "websocket.send", "bytes": chunk})
                now = time.monotonic()
                if now - checked < LOOK_EVERY_S:
                    continue
                checked = now
                if now - began > settings.BOILERHOUSE_TERMINAL_LIMIT_S:
                    await _end(send, OVER, "The session reached its time limit.")
                    return
                if not await is_allowed():
                    await _end(send, OVER, "The tenant is being released, or you no longer have permission.")
                    return
    except Stalled:
        log.warning("slow reader dropped", reader="terminal")
        return
    code = await asyncio.get_running_loop().run_in_executor(None, terminal.exit_code)
    reasons = {126: "This image has no shell.", 127: "This image has no shell.", 137: "The container has stopped."}
    detail = (
        "The container has stopped." if code is None else reasons.get(code, f"The shell ended with exit code {code}.")
    )
    await _end(send, OVER, detail, exit_code=code)


async def _type(receive: Any, terminal: Terminal) -> None:
    """Pass on the user's input, until the connection closes."""
    loop = asyncio.get_running_loop()
    while (message := await receive())["type"] != "websocket.disconnect":
        typed = message.get("bytes")
        if typed:
            await loop.run_in_executor(None, terminal.write, typed[:MAX_TYPED_BYTES])
        elif message.get("text"):
            request = _json(message)
            await loop.run_in_executor(None, terminal.resize, _side(request, "columns", 80), _side(request, "rows", 24))


def _json(message: dict[str, Any]) -> dict[str, Any]:
    with suppress(ValueError, RecursionError):
        document = json.loads(message.get("text") or "{}")
        if isinstance(document, dict):
            return document
    return {}


def _side(wish: dict[str, Any], name: str, default: int) -> int:
    value = wish.get(name)
    return min(MAX_SIDE, max(1, value)) if isinstance(value, int) else default


def _words(error: BoilerhouseError) -> str:
    return error.errors[0].detail if isinstance(error, Invalid) and error.errors else error.detail


async def _end(send: Any, code: int, detail: str, exit_code: int | None = None) -> None:
    with suppress(Exception):  # the browser may have disconnected already
        await send({"type": "websocket.send", "text": json.dumps({"exitCode": exit_code, "detail": detail})})
        await send({"type": "websocket.close", "code": code, "reason": detail})
