"""What differs between the clients: how they wait, how bytes are sent, and WebSockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import IO, TypeVar

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from boilerhouse_client.payloads import Payload
from boilerhouse_client.sockets import Address, closed, not_opened, open_connection

T = TypeVar("T")
HttpClient = httpx.AsyncClient
HttpTransport = httpx.AsyncBaseTransport
Lock = asyncio.Lock
Source = bytes | str | IO[bytes] | Iterable[bytes] | AsyncIterable[bytes]

sleep = asyncio.sleep
in_thread = asyncio.to_thread
"""For what waits for a disk or a name."""


async def content(payload: Payload) -> AsyncIterator[bytes]:
    """Its pieces, as httpx takes them."""
    pieces = payload.fresh()
    if isinstance(pieces, AsyncIterable):
        async for piece in pieces:
            yield piece
        return
    iterator = iter(pieces)
    while (piece := await asyncio.to_thread(next, iterator, None)) is not None:
        yield piece


@asynccontextmanager
async def closing(stream: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """The stream, whose connection is closed at the end of the block, wherever it was left."""
    try:
        yield stream
    finally:
        if isinstance(stream, AsyncGenerator):
            await stream.aclose()


class Socket:
    """A WebSocket."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    @classmethod
    async def open(cls, address: Address) -> Socket:
        """Raises Closed."""
        try:
            opened = await asyncio.to_thread(open_connection, address)
            return cls(await connect(address.url, **address.options(opened)))
        except (OSError, EOFError, ValueError, WebSocketException) as error:
            raise not_opened(address.url, error) from error

    async def receive(self, timeout_s: float | None) -> str | bytes:
        """The next message. Raises Closed and TimeoutError."""
        try:
            return await _within(timeout_s, self._connection.recv)
        except ConnectionClosed as error:
            raise closed(error) from error

    async def send(self, message: str | bytes) -> None:
        """Raises Closed."""
        try:
            await self._connection.send(message)
        except ConnectionClosed as error:
            raise closed(error) from error

    async def close(self) -> None:
        await self._connection.close()


async def _within(timeout_s: float | None, receive: Callable[[], object]) -> str | bytes:
    try:
        return await asyncio.wait_for(receive(), timeout_s)  # type: ignore[arg-type]
    except asyncio.TimeoutError:  # noqa: UP041  # in Python 3.10 it is another class
        raise TimeoutError("Nothing came within this time.") from None
