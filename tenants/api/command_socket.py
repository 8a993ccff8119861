"""``/ws/tenants/<tenant>/commands/<command>`` and ``/ws/containers/<container>/commands/<command>``: a kept command's
output and input over a WebSocket, for programs with a key.

Binary messages are output, of both streams in order, and input. Text messages are JSON: the state first, then
gaps, and the exit or the reason of another end last; from the client a size, a signal, or the end of input.
"""

from __future__ import annotations

import json
import signal as signals
import time
from contextlib import aclosing, suppress
from typing import Any, TypeGuard
from uuid import UUID

import structlog
from channels.db import database_sync_to_async
from django.http import QueryDict

from boilerhouse.api.event_socket import (
    BAD_REQUEST,
    BUSY,
    FORBIDDEN,
    NOT_FOUND,
    SLOW,
    TOO_OFTEN,
    UNAUTHENTICATED,
    bearer_key,
    close,
    refuse,
)
from boilerhouse.core import bounds, context
from boilerhouse.core.errors import BoilerhouseError, Elsewhere, NotFound, TooMany
from boilerhouse.core.ids import uuid7
from boilerhouse.core.models import ApiKey, Role
from boilerhouse.process import budgets
from boilerhouse.web import connections, forwarding, refusals
from boilerhouse.web.streaming import Stalled, Writer, serve
from boilerhouse.web.throttling import must_wait, pauses
from pools.guest import kept
from tenants import commands, idle
from tenants.api.command_fields import MAX_SIDE, name_of
from tenants.api.command_output import IDLE_S, LOOK_EVERY_S, LOST, WORDS, why_ended
from tenants.api.command_views import container_id

log = structlog.get_logger(__name__)

NORMAL, OVER, REFUSED = 1000, 4000, 4409
MAX_OFFSET = (1 << 53) - 1
MAX_TYPED_BYTES = 64 * 1024


class CommandSocket:
    """An ASGI application for both paths."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if (await receive())["type"] != "websocket.connect":
            return
        header = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        if pause := pauses.of(header, time.monotonic()):
            await refuse(send, BUSY, TOO_OFTEN, refusals.key(pause.key_id))
            return
        key = await database_sync_to_async(bearer_key)(header.encode("latin-1")) if header else None
        if key is None:
            detail = "No API key. Send Authorization: Bearer bh_…"
            await refuse(send, UNAUTHENTICATED, detail, refusals.address(scope))
            return
        if must_wait(key, header):
            await refuse(send, BUSY, TOO_OFTEN, refusals.key(key.pk))
            return
        path = scope["url_route"]["kwargs"]
        if not _may(key, path):
            code, detail = (NOT_FOUND, "No such tenant.") if "tenant_id" in path else (FORBIDDEN, "Not for this role.")
            await refuse(send, code, detail, None)
            return
        await self._attach(scope, receive, send, key)

    async def _attach(self, scope: Any, receive: Any, send: Any, key: ApiKey) -> None:
        query, path = QueryDict(scope["query_string"].decode("latin-1")), scope["url_route"]["kwargs"]
        after = bounds.natural(query.get("after", "0"), MAX_OFFSET)
        if after is None or set(query) - {"after"}:
            await refuse(send, BAD_REQUEST, "The only query parameter is after: an offset of the output.", None)
            return
        try:
            container, command, hold = await database_sync_to_async(_open)(key, path, after)
        except BoilerhouseError as error:
            if isinstance(error, Elsewhere) and await forwarding.pass_socket_to(error.node, scope, receive, send):
                return
            code = NOT_FOUND if isinstance(error, NotFound) else BUSY if isinstance(error, TooMany) else REFUSED
            await refuse(send, code, error.detail, refusals.key(key.pk) if code == BUSY else None)
            return
        connections.vouch_for(scope)
        try:
            await send({"type": "websocket.accept"})
            writer = Writer(send, scope.get("boilerhouse.backlog"))
            await serve(_show(command, writer, send, container, key.pk), _type(receive, command, container))
        finally:
            command.close()
            hold.release()


def _may(key: ApiKey, path: dict[str, Any]) -> bool:
    if key.role == Role.TENANT:
        return path.get("tenant_id") in key.tenant_ids
    return key.role in (Role.ADMIN, Role.OPERATOR)


def _open(key: ApiKey, path: dict[str, Any], after: int) -> tuple[UUID, kept.Kept, budgets.Hold]:
    with context.acting(f"key {key.name}", uuid7().hex):
        container = container_id(path)
        hold = budgets.streams.enter(*budgets.owners(key, budgets.container(container)))
        with hold.kept():
            return container, commands.open_output(container, path["command_id"], after), hold


async def _show(command: kept.Kept, writer: Writer, send: Any, container: UUID, key_id: str) -> None:
    ask, looked = database_sync_to_async(why_ended), time.monotonic()

    async def say(kind: str, **more: Any) -> None:
        await writer.write({"type": "websocket.send", "text": json.dumps({"type": kind, **more})})

    try:
        await say("state", state=command.status.state.value, tty=command.status.is_terminal, offset=command.position)
        async with aclosing(command.stream(IDLE_S)) as messages:  # type: ignore[type-var]
            async for message in messages:
                if isinstance(message, kept.Output):
                    await writer.write({"type": "websocket.send", "bytes": message.data})
                elif isinstance(message, kept.Gap):
                    await say("gap", offset=message.offset)
                elif isinstance(message, kept.End):
                    ended = {"exitCode": message.exit_code, "signal": name_of(message.signal)}
                    await say("exit", **ended, timedOut=message.timed_out)
                    await send({"type": "websocket.close", "code": NORMAL, "reason": "The command has ended."})
                    return
                if time.monotonic() - looked >= LOOK_EVERY_S:
                    looked = time.monotonic()
                    if (reason := await ask(container, key_id)) is not None:
                        break
            else:
                reason = await ask(container, key_id) or LOST
        await say("end", reason=reason, detail=WORDS[reason])
        await send({"type": "websocket.close", "code": OVER, "reason": WORDS[reason]})
    except Stalled:
        log.warning("slow reader dropped", reader="command")
        await close(send, SLOW, "The client reads too slowly; connect again with ?after= and the last offset.")


async def _type(receive: Any, command: kept.Kept, container: UUID) -> None:
    """Pass on what the client sends, as fast as the command takes it, until the connection closes."""
    noted = 0.0
    with suppress(OSError):  # the command's connection ended; the other side says why
        while (message := await receive())["type"] != "websocket.disconnect":
            if time.monotonic() - noted > idle.SLACK.total_seconds():
                noted = time.monotonic()
                await database_sync_to_async(idle.note_activity)(container)
            typed = message.get("bytes")
            if typed:
                for start in range(0, len(typed), MAX_TYPED_BYTES):
                    await command.tell(kept.input_frames(typed[start : start + MAX_TYPED_BYTES], is_last=False))
            elif message.get("text"):
                await command.tell(*_requests(message["text"], is_terminal=command.status.is_terminal))
        return
    while (await receive())["type"] != "websocket.disconnect":
        pass


def _requests(text: str, *, is_terminal: bool) -> list[bytes]:
    """The frames that a client's JSON asks for; what is unknown asks for nothing."""
    wanted: Any = None
    with suppress(ValueError, RecursionError):
        wanted = json.loads(text)
    if not isinstance(wanted, dict):
        return []
    columns, rows = wanted.get("cols"), wanted.get("rows")
    found = []
    if _is_side(columns) and _is_side(rows):
        found.append(kept.window_frame(columns, rows))
    if wanted.get("signal") in commands.SIGNALS:
        found.append(kept.signal_frame(signals.Signals[wanted["signal"]].value))
    if wanted.get("close") is True:
        found.append(kept.input_frames(b"\x04", is_last=False) if is_terminal else kept.input_frames(b"", is_last=True))
    return found


def _is_side(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_SIDE
