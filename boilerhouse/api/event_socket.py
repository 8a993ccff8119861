"""``/ws/events``: the event stream as JSON messages over a WebSocket, for programs with a key and for staff pages.

A page has one socket, so what else it follows comes over it too: ``EventSocket`` takes the function for its messages.

A client with a key needs no Origin. A session is accepted only from our own pages, because browsers send cookies with
requests from any site.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any
from urllib.parse import parse_qs

import structlog
from channels.auth import AuthMiddlewareStack
from channels.db import database_sync_to_async
from django.http import QueryDict
from rest_framework.exceptions import NotFound

from boilerhouse.api.event_views import FILTERS, wanted_events
from boilerhouse.core import bounds
from boilerhouse.core.api_keys import find_key
from boilerhouse.core.errors import BoilerhouseError, Invalid
from boilerhouse.core.models import ApiKey
from boilerhouse.process import budgets
from boilerhouse.web import connections, refusals, shutdown
from boilerhouse.web.event_stream import EventFilter, Revoked, hub, newest_id
from boilerhouse.web.handshakes import OurPagesOnly
from boilerhouse.web.streaming import Stalled, Writer, serve
from boilerhouse.web.throttling import must_wait, pauses

log = structlog.get_logger(__name__)

RESTARTING = 4503
BAD_REQUEST, UNAUTHENTICATED, FORBIDDEN, NOT_FOUND, SLOW, BUSY = 4400, 4401, 4403, 4404, 4408, 4429
SESSION_CHECK_EVERY_S = 5.0
TOO_OFTEN = "Too many requests with this key; connect again later."


class Refused(Exception):
    def __init__(self, code: int, detail: str) -> None:
        self.code, self.detail = code, detail
        super().__init__(detail)


Hear = Callable[[str], Awaitable[None]]
Listener = Callable[[Any, Writer], AbstractAsyncContextManager[Hear]]
"""Called with a page's scope and the writer of its socket: what gets the page's messages as long as it is open."""


class EventSocket:
    """An ASGI application for one path. ``listener`` gets the messages of pages; those of programs have no meaning."""

    def __init__(self, listener: Listener | None = None) -> None:
        self._listener = listener
        self._with_session = OurPagesOnly(AuthMiddlewareStack(self._serve))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope["headers"])
        if (header := headers.get(b"authorization")) is not None:
            if pause := pauses.of(header.decode("latin-1"), time.monotonic()):
                if (await receive())["type"] == "websocket.connect":
                    await refuse(send, BUSY, TOO_OFTEN, refusals.key(pause.key_id))
                return
            scope = {**scope, "boilerhouse.key": await database_sync_to_async(bearer_key)(header)}
            await self._serve(scope, receive, send)
        elif b"origin" in headers:
            await self._with_session(scope, receive, send)
        else:
            await self._serve(scope, receive, send)  # a client with a key is not a browser

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        if (await receive())["type"] != "websocket.connect":
            return
        try:
            after, filter_, key = _wish(scope)
            if key is not None and must_wait(key, dict(scope["headers"])[b"authorization"].decode("latin-1")):
                raise Refused(BUSY, TOO_OFTEN)
            hold = budgets.streams.enter(*_owners(scope, key))
        except Refused as refusal:
            await refuse(send, refusal.code, refusal.detail, _whom(scope, refusal.code))
            return
        except BoilerhouseError as error:
            await refuse(send, BUSY, error.detail, _whom(scope, BUSY))
            return
        connections.vouch_for(scope)
        with hold:
            opened_at = await database_sync_to_async(newest_id)() if after is None else None
            await send({"type": "websocket.accept"})
            writer = Writer(send, scope.get("boilerhouse.backlog"))
            leaves = self._listen(scope, writer, receive) if key is None else _disconnect(receive)
            await serve(self._follow(scope, writer, send, (after, opened_at), filter_, key), leaves)
        if shutdown.begun.is_set:
            await close(send, RESTARTING, "This process is stopping; connect again.")

    async def _listen(self, scope: Any, writer: Writer, receive: Any) -> None:
        """Until the page leaves."""
        if self._listener is None:
            await _disconnect(receive)
            return
        async with self._listener(scope, writer) as hear:
            while (message := await receive())["type"] != "websocket.disconnect":
                await hear(message.get("text") or "")

    async def _follow(
        self,
        scope: Any,
        writer: Writer,
        send: Any,
        start: tuple[int | None, int | None],
        filter_: EventFilter,
        key: ApiKey | None,
    ) -> None:
        after, opened_at = start
        idle_s = SESSION_CHECK_EVERY_S if key is None else 3600.0
        checked = asyncio.get_running_loop().time()
        try:
            async with aclosing(
                hub.read(after, filter_, key.pk if key else None, idle_s, opened_at=opened_at)
            ) as batches:
                async for sent in batches:
                    now = asyncio.get_running_loop().time()
                    if key is None and now - checked >= SESSION_CHECK_EVERY_S:
                        checked = now
                        if not await database_sync_to_async(_is_signed_in)(scope):
                            await close(send, UNAUTHENTICATED, "You have signed out.")
                            return
                    if sent is not None:
                        await writer.write({"type": "websocket.send", "text": sent.text})
        except Revoked:
            await close(send, UNAUTHENTICATED, "This key was revoked or has expired.")
        except Stalled:
            log.warning("slow reader dropped", reader=key.name if key else "session")
            await close(send, SLOW, "The client reads too slowly; connect again with ?after= and the last id.")


def bearer_key(header: bytes) -> ApiKey | None:
    """The valid key of an ``Authorization`` header."""
    scheme, _, key = header.decode("latin-1").partition(" ")
    return find_key(key.strip()) if scheme.lower() == "bearer" else None


def _wish(scope: Any) -> tuple[int | None, EventFilter, ApiKey | None]:
    key = scope.get("boilerhouse.key")
    if key is None:
        user = scope.get("user")
        if user is None or not user.is_authenticated:
            raise Refused(UNAUTHENTICATED, "No API key. Send Authorization: Bearer bh_…")
        if not user.is_staff:
            raise Refused(FORBIDDEN, "Only staff may open this page.")
    text = scope["query_string"].decode("latin-1")
    unknown = sorted(set(parse_qs(text, keep_blank_values=True)) - {*FILTERS, "after"})
    if unknown:
        raise Refused(BAD_REQUEST, f"Query parameter {unknown[0][:60]}: unknown")
    query = QueryDict(text)
    after = bounds.natural(query["after"], bounds.MAX_ID) if "after" in query else None
    if after is None and "after" in query:
        raise Refused(BAD_REQUEST, "Query parameter after: must be the id of an event")
    try:
        return after, wanted_events(query, key), key
    except NotFound:
        raise Refused(NOT_FOUND, "No such tenant.") from None
    except Invalid as error:
        raise Refused(BAD_REQUEST, error.detail) from error


def _owners(scope: Any, key: ApiKey | None) -> tuple[budgets.Owner, ...]:
    return (budgets.user(scope["user"].get_username()),) if key is None else budgets.owners(key)


def _is_signed_in(scope: Any) -> bool:
    from django.contrib.auth import get_user_model

    from boilerhouse.core.models import Session

    has_session = Session.objects.filter(pk=scope["session"].session_key).exists()
    users = get_user_model().objects.filter(pk=scope["user"].pk, is_active=True, is_staff=True)
    return has_session and users.exists()


async def _disconnect(receive: Any) -> None:
    while (await receive())["type"] != "websocket.disconnect":
        pass


def _whom(scope: Any, code: int) -> refusals.Refused | None:
    """The key or address that counts for repeated refusals with this code, or None."""
    key = scope.get("boilerhouse.key")
    if code == BUSY and key is not None:
        return refusals.key(key.pk)
    return refusals.address(scope) if code in (BUSY, UNAUTHENTICATED) else None


async def refuse(send: Any, code: int, detail: str, of: refusals.Refused | None) -> None:
    """Close the socket with one of our codes, which requires that it has been accepted."""
    if of:
        await refusals.moment(of)
    await send({"type": "websocket.accept"})
    await close(send, code, detail)


async def close(send: Any, code: int, detail: str) -> None:
    await send({"type": "websocket.send", "text": json.dumps({"type": "error", "code": code, "detail": detail})})
    await send({"type": "websocket.close", "code": code, "reason": detail})
