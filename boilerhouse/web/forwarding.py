"""Requests about containers of another node: they are passed on to that node, and its answer is passed back.

A view learns from the container's row that it is elsewhere, before it does anything, and raises ``Elsewhere``. The
request, with its key, then goes as it came to the node's own listener (``web.node_listener``), where the same view
serves it. Bodies and answers of any length are passed on as they come (ADR 98).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import structlog

from boilerhouse.web import connections, node_calls
from boilerhouse.web.body_streams import BodyStream
from boilerhouse.web.node_calls import Peer
from boilerhouse.web.streaming import Writer

if TYPE_CHECKING:
    import httpx

log = structlog.get_logger("boilerhouse.nodes")

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

OWN_TO_A_CONNECTION = frozenset(
    [
        b"connection", b"expect", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection",
        b"te", b"trailer", b"transfer-encoding", b"upgrade",
    ]
)  # fmt: skip
"""Headers that are about one connection and not about the request."""
TRIES = 2
"""For requests that change nothing."""
PING_S = 20.0


class Unreachable(Exception):
    """The node did not take the request. Nothing has been sent to the client, and nothing done."""


class OutcomeUnknown(Exception):
    """The node took the request and did not answer. Nothing has been sent to the client."""


class BrokenOff(Exception):
    """The node's answer ended in the middle."""


_transports: dict[asyncio.AbstractEventLoop, httpx.AsyncHTTPTransport] = {}


def _transport() -> httpx.AsyncHTTPTransport:
    import httpx

    context, loop = node_calls.tls(), asyncio.get_running_loop()
    if loop not in _transports:
        options = node_calls.options()
        _transports[loop] = httpx.AsyncHTTPTransport(verify=context, **options)
    return _transports[loop]


class Passed:
    """A request that is passed on to ``peer``. ``status`` is that of its answer, 499 while there is none."""

    def __init__(self, peer: Peer, scope: Scope, body: bytes | BodyStream, request_id: str) -> None:
        self.peer, self.request_id, self.status = peer, request_id, 499
        self._scope, self._body = scope, body

    async def on(self, send: Send) -> None:
        """Pass the request on, and its answer back at the client's speed.

        It waits as long as the view there does. Raises Unreachable, OutcomeUnknown, BrokenOff, Stalled.
        """
        import httpx

        answer = await self._ask()
        self.status = answer.status_code
        writer = Writer(send, self._scope.get("boilerhouse.backlog"))
        headers = [(name.lower(), value) for name, value in answer.headers.raw]
        headers = [(name, value) for name, value in headers if name not in OWN_TO_A_CONNECTION]
        try:
            await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
            await send({"type": "http.response.body", "body": b"", "more_body": True})  # the head does not wait
            async for piece in answer.aiter_raw():
                await writer.write({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except httpx.HTTPError as error:
            log.warning("answer of a node broken off", node=self.peer.node, error=type(error).__name__)
            raise BrokenOff from error
        finally:
            await answer.aclose()

    async def _ask(self) -> httpx.Response:
        """The answer, whose body has yet to come."""
        import httpx

        is_harmless = self._scope["method"] in ("GET", "HEAD")
        for attempt in range(TRIES if is_harmless else 1):
            try:
                return await _transport().handle_async_request(self._request())
            except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, OSError) as error:
                log.warning("node not reached", node=self.peer.node, error=type(error).__name__)
                raise Unreachable from error
            except httpx.HTTPError as error:  # also a connection that was kept, and that the node has just closed
                log.warning("node did not answer", node=self.peer.node, error=type(error).__name__)
                if attempt == TRIES - 1 or not is_harmless:
                    raise (Unreachable if is_harmless else OutcomeUnknown) from error
        raise AssertionError  # the last attempt returns or raises

    def _request(self) -> httpx.Request:
        import httpx

        scope, peer = self._scope, self.peer
        query = scope.get("query_string", b"")
        path = _raw_path(scope) + (b"?" + query if query else b"")
        content = self._body if isinstance(self._body, bytes) else _pieces(self._body)
        return httpx.Request(
            scope["method"],
            httpx.URL(scheme="https", host=peer.host, port=peer.port, raw_path=path),
            headers=[*_headers(scope), (b"x-request-id", self.request_id.encode())],
            content=content or None,
            extensions=node_calls.extensions(peer, None),
        )


async def _pieces(body: BodyStream) -> AsyncIterator[bytes]:
    while piece := await body.read():
        yield piece


def _raw_path(scope: Scope) -> bytes:
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    return raw.partition(b"?")[0]


def _headers(scope: Scope) -> list[tuple[bytes, bytes]]:
    """Those of the request, and the client that it counts for."""
    left_out = OWN_TO_A_CONNECTION | {b"x-forwarded-for", b"x-request-id"}
    headers = [(name, value) for name, value in scope["headers"] if name not in left_out]
    client = connections.address_of(scope)
    return [*headers, (b"x-forwarded-for", client.encode())] if client else headers


async def pass_socket_to(
    node: str, scope: Scope, receive: Receive, send: Send, *, first: dict[str, Any] | None = None
) -> bool:
    """Pass a WebSocket on to the node until one side closes it. False if that cannot be reached: nothing was sent."""
    peer = await asyncio.to_thread(node_calls.peer_of_in_thread, node)
    try:
        if peer is not None:
            await _pass_socket(peer, scope, receive, send, first)
    except Unreachable:
        return False
    return peer is not None


async def _pass_socket(peer: Peer, scope: Scope, receive: Receive, send: Send, first: dict[str, Any] | None) -> None:
    """Raises Unreachable.

    ``first`` is a message that has been received already, of a socket that has been accepted; otherwise it is accepted
    here once the node has done so.
    """
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed, WebSocketException

    headers = dict(_headers(scope))
    host = headers.get(b"host", b"localhost").decode("latin-1")
    query = scope.get("query_string", b"").decode("latin-1")
    uri = f"wss://{host}{_raw_path(scope).decode('latin-1')}{'?' + query if query else ''}"
    kept = (b"authorization", b"cookie", b"origin", b"user-agent", b"x-forwarded-for", b"x-forwarded-proto")
    more = [(name.decode(), headers[name].decode("latin-1")) for name in kept if name in headers]
    try:
        far = await connect(
            uri, host=peer.host, port=peer.port, ssl=node_calls.tls(), server_hostname=peer.host_name,
            additional_headers=more, user_agent_header=None, compression=None, open_timeout=10, ping_interval=PING_S,
            max_size=4 << 20, proxy=None,
        )  # fmt: skip
    except (OSError, TimeoutError, WebSocketException) as error:
        log.warning("node not reached", node=peer.node, error=type(error).__name__)
        raise Unreachable from error
    if first is None:
        await send({"type": "websocket.accept"})
    writer = Writer(send, scope.get("boilerhouse.backlog"))

    async def outward() -> None:
        message = first
        while message is None or message["type"] != "websocket.disconnect":
            if message is not None and message["type"] == "websocket.receive":
                text, data = message.get("text"), message.get("bytes")
                await far.send(text if text is not None else data or b"")
            message = await receive()

    async def inward() -> None:
        async for message in far:
            kind = "text" if isinstance(message, str) else "bytes"
            await writer.write({"type": "websocket.send", kind: message})

    tasks = [asyncio.ensure_future(outward()), asyncio.ensure_future(inward())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[1].done():
            code = far.close_code if far.close_code and far.close_code not in (1005, 1006) else 1011
            await send({"type": "websocket.close", "code": code, "reason": far.close_reason or ""})
    finally:
        for task in tasks:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        await far.close()
        for one in done:
            if isinstance(one, Exception) and not isinstance(one, ConnectionClosed):
                log.warning("socket of a node ended", node=peer.node, error=type(one).__name__)
