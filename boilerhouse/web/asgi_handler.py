"""Django behind ASGI on a small, fixed set of long-lived threads.

Each request runs the plain synchronous chain in one of N threads, so the number of database connections is bounded and
they stay open. A view that must wait returns ``Waiting`` and frees its thread (ADR 0002).
"""

from __future__ import annotations

import asyncio
import io
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import structlog
from django.conf import settings
from django.core import signals
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.base import BaseHandler
from django.db import close_old_connections, connection
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.urls import set_script_prefix

from boilerhouse.core import context
from boilerhouse.core.errors import BoilerhouseError
from boilerhouse.core.ids import uuid7
from boilerhouse.process.fair_semaphore import FairSemaphore
from boilerhouse.web import connections, forwarding, idempotency, node_calls, refusals, shutdown, throttling
from boilerhouse.web.body_streams import ClientGone
from boilerhouse.web.middleware import safe_request_id
from boilerhouse.web.problems import problem
from boilerhouse.web.receiving import Receiving
from boilerhouse.web.request_bodies import Body
from boilerhouse.web.request_heads import MAX_BODY_BYTES, UNKNOWN_BODY_BYTES, Refusal, shown_path, view_of
from boilerhouse.web.streaming import Stalled, Stream, Writer, serve
from boilerhouse.web.wait_slots import WaitSlots
from boilerhouse.web.waiting import Waiters, Waiting

log = structlog.get_logger("boilerhouse.http")

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

PIECE_BYTES = 64 * 1024
SIGN_INS, SIGN_INS_PER_ADDRESS = 24, 4
"""Requests that wait for the one thread that hashes passwords, half a second each."""
REFUSALS = {
    Refusal.TOO_LARGE: (413, "too_large", f"The request body may have at most {MAX_BODY_BYTES} bytes.", ""),
    Refusal.UNKNOWN: (
        413,
        "too_large",
        f"Before you log in, the request body may have at most {UNKNOWN_BODY_BYTES} bytes.",
        "",
    ),
    Refusal.TOO_SLOW: (408, "body_too_slow", "The request body did not arrive in time. Send it again.", ""),
    Refusal.SHARE_USED_UP: (
        429,
        "budget_exceeded",
        "The bodies of your requests use all the memory they may. Try again when some have been answered.",
        "1",
    ),
    Refusal.NO_MEMORY: (503, "too_many_bodies", "Request bodies use all the memory they may. Try again.", "5"),
    Refusal.TOO_MANY: (
        503,
        "too_many_bodies",
        "Too many requests from your address are arriving at once. Try again.",
        "5",
    ),
}
"""Answered without a view: status, code, detail and Retry-After."""


class ThreadedHandler(BaseHandler):
    """An ASGI application for HTTP. A fixed number of threads serves all requests of the process."""

    def __init__(self) -> None:
        super().__init__()
        self.load_middleware(is_async=False)
        self.threads = ThreadPoolExecutor(settings.BOILERHOUSE_WEB_THREADS, thread_name_prefix="web")
        self.lanes = {
            "claim": ThreadPoolExecutor(settings.BOILERHOUSE_CLAIM_THREADS, thread_name_prefix="claim"),
            "slow": ThreadPoolExecutor(settings.BOILERHOUSE_SLOW_THREADS, thread_name_prefix="slow"),
            "sign-in": ThreadPoolExecutor(1, thread_name_prefix="sign-in"),
        }
        # A claim waits for PostgreSQL between its steps; SQLite runs in this process (ADR 22).
        self.turns = {"claim": FairSemaphore(places=1 if connection.vendor == "sqlite" else 2)}
        self.sign_ins = WaitSlots(SIGN_INS, SIGN_INS_PER_ADDRESS)
        self.waiters = Waiters(ThreadPoolExecutor(1, thread_name_prefix="waiters"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError(f"not HTTP: {scope['type']}")
        hold = scope.get("boilerhouse.hold")
        if scope.get("boilerhouse.body") is None:
            await self._serve(scope, Body(await self._read(receive), hold), receive, send)
            return
        try:  # the place of a body that arrives meanwhile is free when all of it has been used
            await self._serve(scope, Body(await self._read(receive), None), receive, send)
        except ClientGone:
            return
        finally:
            if hold is not None:
                hold.release()

    async def _serve(self, scope: Scope, body: Body, receive: Receive, send: Send) -> None:
        early = _early(scope, len(body.data))
        if early is not None:
            body.drop()
        response = early if early is not None else await self._answer_in_lane(scope, body, receive)
        if response is not None and hasattr(response, "other_node"):
            response = await self._pass_on(response, scope, receive, send)
        if response is None:
            return
        if of := _refused(scope, response):
            await self._take_time(scope, response, of)
        if early is not None:
            await _send_short(early, send)
        elif isinstance(response, Stream):
            await self._stream(response, scope, receive, send)
        else:
            await self._send(response, scope, send)

    async def _pass_on(
        self, response: HttpResponseBase, scope: Scope, receive: Receive, send: Send
    ) -> HttpResponseBase | None:
        """Have the node answer that has the request's container. Returns what is left to send: nothing, if it did."""
        loop, node = asyncio.get_running_loop(), str(response.other_node)  # type: ignore[attr-defined]
        note: Callable[[int, str], None] = response.note  # type: ignore[attr-defined]
        peer = await loop.run_in_executor(self.threads, node_calls.peer_of_in_thread, node)
        if peer is None:
            note(response.status_code, node)
            return response
        body = scope.get("boilerhouse.body") or response.request_body  # type: ignore[attr-defined]
        passed = forwarding.Passed(peer, scope, body, str(response.get("X-Request-ID", "")))
        left: HttpResponseBase | None = None
        try:
            if not await serve(passed.on(send), _disconnect(receive), until=shutdown.cut):
                _drop(scope)
        except forwarding.BrokenOff:
            _drop(scope)
        except (forwarding.Unreachable, forwarding.OutcomeUnknown) as error:
            # A page says itself where the container is.
            left = _no_answer(error, passed) if _path(scope).startswith("/api/") else response
            passed.status = left.status_code
        finally:
            note(passed.status, node)
            if left is not response:
                await loop.run_in_executor(self.threads, response.close)
        return left

    @staticmethod
    async def _take_time(scope: Scope, response: HttpResponseBase, of: refusals.Refused) -> None:
        """Delay a refusal like the other refusals of this client. Above their limit, the connection ends after this
        one."""
        if await refusals.moment(of, float(response.get("Retry-After") or refusals.LATE_S)):
            return
        response["Connection"] = "close"
        if (connection := scope.get("boilerhouse.connection")) is not None:
            connection.channel.close_when_answered()

    async def _answer_in_lane(self, scope: Scope, body: Body, receive: Receive) -> HttpResponseBase | None:
        lane = _lane(scope)
        if lane != "sign-in":
            return await self._answer(scope, body, lane, receive)
        with self.sign_ins.place(connections.address_of(scope)) as has_place:
            if has_place:
                return await self._answer(scope, body, lane, receive)
        body.drop()
        return _too_many_sign_ins()

    async def _answer(self, scope: Scope, body: Body, lane: str, receive: Receive) -> HttpResponseBase | None:
        """The response; None if the client disconnected while it waited."""
        threads, respond = self.lanes.get(lane, self.threads), self._respond
        if lane in self.turns:
            respond = partial(self._respond_in_turn, self.turns[lane])
        resumed: Waiting | None = None
        try:
            while True:
                response = await _run(threads, partial(respond, scope, body, resumed))
                if not isinstance(response, Waiting):
                    return response
                resumed = response
                if isinstance(response, Receiving):
                    await response.receive(scope["boilerhouse.body"])
                    continue
                try:
                    if shutdown.cut.is_set:
                        return _ask_again(response)
                    if not await self._wait(response, receive):
                        return None
                finally:
                    response.leave()
        finally:
            if isinstance(resumed, Receiving):
                resumed.give_up()

    async def _wait(self, waiting: Waiting, receive: Receive) -> bool:
        """Wait until the request's condition holds; False if the client has disconnected.

        With an Idempotency-Key, the client may repeat the request, so this waits in any case, as long as the server
        runs.
        """
        settled = asyncio.ensure_future(self.waiters.wait(waiting))
        leaving = asyncio.ensure_future(_disconnect(receive))
        watched = (settled, leaving) if waiting.idempotency is None else (settled,)
        try:
            await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            if settled.done():
                settled.result()
            return settled.done()
        except asyncio.CancelledError:
            if waiting.idempotency is not None:
                self.threads.submit(_abandon, waiting.idempotency)
            raise
        finally:
            settled.cancel()
            leaving.cancel()
            await asyncio.gather(settled, leaving, return_exceptions=True)

    async def _stream(self, response: Stream, scope: Scope, receive: Receive, send: Send) -> None:
        del response["Content-Length"]  # a middleware takes it for an empty response
        if response.length is not None:
            response["Content-Length"] = str(response.length)

        async def put(chunk: bytes) -> None:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})

        try:
            await send({"type": "http.response.start", "status": response.status_code, "headers": _headers(response)})
            if scope["method"] != "HEAD":
                await put(b"")  # sends the head, which the server otherwise keeps until there is a piece of the body
                working = response.run(Writer(put, scope.get("boilerhouse.backlog")))
                if not await self._served(response, working, receive):
                    _drop(scope)
                    return
            await send({"type": "http.response.body", "body": b""})
        finally:
            await asyncio.get_running_loop().run_in_executor(self.threads, response.close)

    @staticmethod
    async def _served(response: Stream, working: Coroutine[Any, Any, None], receive: Receive) -> bool:
        """Whether the stream may end as if it were complete."""
        if not response.is_whole:
            await serve(working, _disconnect(receive))
            return True
        try:
            return await serve(working, _disconnect(receive), until=shutdown.cut)
        except BoilerhouseError as error:
            log.warning("stream broken off", detail=error.detail, code=error.code)
            return False

    async def _read(self, receive: Receive) -> bytes:
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return body
            if len(body) <= MAX_BODY_BYTES:
                body += message.get("body", b"")
            if not message.get("more_body"):
                return body

    def _respond_in_turn(self, turns: FairSemaphore, *arguments: Any) -> HttpResponseBase:
        with turns.turn():
            return self._respond(*arguments)

    def _respond(self, scope: Scope, body: Body, resumed: Waiting | None) -> HttpResponseBase:
        set_script_prefix(scope.get("root_path", "") or "/")
        signals.request_started.send(sender=self.__class__, scope=scope)
        request = ASGIRequest(scope, io.BytesIO(body.data))
        if scope.get("boilerhouse.body") is not None:
            request._body = b""  # its length says nothing of what is in memory
        request.resumed = resumed  # type: ignore[attr-defined]
        data = body.data
        try:
            response = self.get_response(request)
        finally:
            body.drop()
        if hasattr(response, "other_node"):
            response.request_body = data  # type: ignore[attr-defined]  # the node needs it
        if isinstance(response, Waiting):
            response.close()
        return response

    async def _send(self, response: HttpResponseBase, scope: Scope, send: Send) -> None:
        """Send at the client's speed: data that it does not read is not copied into this process's memory."""
        try:
            await send({"type": "http.response.start", "status": response.status_code, "headers": _headers(response)})
            if isinstance(response, HttpResponse) and len(response.content) <= PIECE_BYTES:
                await send({"type": "http.response.body", "body": response.content})
            else:
                await self._send_pieces(response, scope, send)
        finally:
            await asyncio.get_running_loop().run_in_executor(self.threads, response.close)

    async def _send_pieces(self, response: HttpResponseBase, scope: Scope, send: Send) -> None:
        loop, chunks = asyncio.get_running_loop(), iter(response)
        writer = Writer(send, scope.get("boilerhouse.backlog"))
        try:
            while piece := await loop.run_in_executor(self.threads, _next_piece, chunks):
                for start in range(0, len(piece), PIECE_BYTES):
                    part = piece[start : start + PIECE_BYTES]
                    await writer.write({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except Stalled:
            _drop(scope)


async def _run(threads: ThreadPoolExecutor, respond: Callable[[], HttpResponseBase]) -> HttpResponseBase:
    """Return the response. If the client has disconnected meanwhile, close it to free its resources."""
    loop = asyncio.get_running_loop()
    running = loop.run_in_executor(threads, respond)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        running.add_done_callback(
            lambda future: future.exception() or loop.run_in_executor(threads, _close, future.result())
        )
        raise


def _close(response: HttpResponseBase) -> None:
    """Free the resources of a response that no client receives, and keep nothing from a client that repeats the
    request."""
    response.close()
    if isinstance(response, Waiting):
        response.leave()
        if response.idempotency is not None:
            _abandon(response.idempotency)


def _abandon(record: idempotency.Record) -> None:
    close_old_connections()
    idempotency.abandon(record)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _path(scope: Scope) -> str:
    """The path below BOILERHOUSE_BASE_PATH."""
    return str(scope["path"].removeprefix(scope.get("root_path", "")))


def _lane(scope: Scope) -> str:
    """The threads that serve the view: views that wait for the engine or a sink have their own."""
    head = scope.get("boilerhouse.head")
    view = head.view if head else view_of(_path(scope))
    lane: str = getattr(getattr(view, "view_class", view), "lane", "")
    return "" if lane == "sign-in" and scope["method"] != "POST" else lane  # only submitting a form hashes a password


def _too_many_sign_ins() -> HttpResponse:
    words = "Too many logins at once. Nothing was checked. Go back and submit the form again in a few seconds.\n"
    return HttpResponse(words, status=429, content_type="text/plain; charset=utf-8", headers={"Retry-After": "5"})


def _ask_again(waiting: Waiting) -> HttpResponse:
    """The process is stopping, and the request's work continues without it."""
    request_id = str(getattr(waiting, "request_id", ""))
    with context.acting("anonymous", request_id):
        response = problem(
            503,
            "outcome_unknown",
            "This process is stopping before the outcome is known. Repeat the request to join the work, which"
            " continues.",
        )
    response["X-Request-ID"], response["Retry-After"] = request_id, "1"
    return response


def _no_answer(error: Exception, passed: forwarding.Passed) -> HttpResponse:
    code, detail = "node_unreachable", f"The container is on node {passed.peer.node}, which does not answer. Try again."
    if isinstance(error, forwarding.OutcomeUnknown):
        code, detail = (
            "outcome_unknown",
            f"The answer of node {passed.peer.node} was lost. The work may have been done.",
        )
    with context.acting("anonymous", passed.request_id):
        response = problem(503, code, detail)
    response["X-Request-ID"], response["Retry-After"] = passed.request_id, "2"
    return response


def _next_piece(chunks: Iterator[bytes]) -> bytes:
    """Files come in chunks of a few kilobytes; a thread switch costs more."""
    piece = bytearray()
    for chunk in chunks:
        piece += chunk
        if len(piece) >= PIECE_BYTES:
            break
    return bytes(piece)


def _drop(scope: Scope) -> None:
    """A part of the response was sent, so the connection cannot be reused."""
    log.warning("response broken off", path=shown_path(_path(scope)))
    if (connection := scope.get("boilerhouse.connection")) is not None:
        connection.abort()


def _authorization(scope: Scope) -> str:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"), "")


def _early(scope: Scope, length: int) -> HttpResponse | None:
    """A response without a view: a flood of refused requests must cost almost nothing."""
    if pause := throttling.pauses.of(_authorization(scope), now := time.monotonic()):
        words = "Too many requests with this key. Try again after Retry-After."
        response = _refuse(scope, 429, "throttled", words, str(math.ceil(pause.until - now)))
        response.key_id = pause.key_id  # type: ignore[attr-defined]
        return response
    refusal = Refusal.TOO_LARGE if length > MAX_BODY_BYTES else scope.get("boilerhouse.refusal")
    return _refuse(scope, *REFUSALS[refusal]) if refusal in REFUSALS else None


def _refused(scope: Scope, response: HttpResponseBase) -> refusals.Refused | None:
    """The party that the response refuses, if it does: a known key, otherwise the address."""
    if response.status_code == 429 and (key_id := getattr(response, "key_id", "")):
        return refusals.key(key_id)
    return refusals.address(scope) if response.status_code in (401, 429) else None


async def _send_short(response: HttpResponse, send: Send) -> None:
    """A response that no view created, so there is nothing to close."""
    await send({"type": "http.response.start", "status": response.status_code, "headers": _headers(response)})
    await send({"type": "http.response.body", "body": response.content})


def _refuse(scope: Scope, status: int, code: str, detail: str, retry_after: str = "") -> HttpResponse:
    header = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
    request_id = safe_request_id(header) or uuid7().hex
    with context.acting("anonymous", request_id):
        response = problem(status, code, detail, headers={"Retry-After": retry_after} if retry_after else None)
        log.info("request", method=scope["method"], path=shown_path(_path(scope)), status=status)
    response["X-Request-ID"] = request_id
    return response


def _headers(response: HttpResponseBase) -> list[tuple[bytes, bytes]]:
    headers = [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in response.items()]
    return headers + [
        (b"set-cookie", cookie.output(header="").strip().encode()) for cookie in response.cookies.values()
    ]
