"""What differs between the clients: how they wait, how bytes are sent, and WebSockets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import IO, ParamSpec, TypeVar

import httpx
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect

from boilerhouse_client.payloads import Payload
from boilerhouse_client.sockets import Address, closed, not_opened, open_connection

P = ParamSpec("P")
T = TypeVar("T")
HttpClient = httpx.Client
HttpTransport = httpx.BaseTransport
Lock = threading.Lock
Source = bytes | str | IO[bytes] | Iterable[bytes]

sleep = time.sleep


def in_thread(function: Callable[P, T], /, *arguments: P.args, **options: P.kwargs) -> T:
    """In this one: who called waits anyway."""
    return function(*arguments, **options)


def content(payload: Payload) -> Iterator[bytes]:
    """Its pieces, as httpx takes them."""
    yield from payload.fresh()


@contextmanager
def closing(stream: Iterator[T]) -> Iterator[Iterator[T]]:
    """The stream, whose connection is closed at the end of the block, wherever it was left."""
    try:
        yield stream
    finally:
        if isinstance(stream, Generator):
            stream.close()


class Socket:
    """A WebSocket."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    @classmethod
    def open(cls, address: Address) -> Socket:
        """Raises Closed."""
        try:
            opened = open_connection(address)
            return cls(connect(address.url, **address.options(opened)).__enter__())
        except (OSError, EOFError, ValueError, WebSocketException) as error:
            raise not_opened(address.url, error) from error

    def receive(self, timeout_s: float | None) -> str | bytes:
        """The next message. Raises Closed and TimeoutError."""
        try:
            return self._connection.recv(timeout_s)
        except ConnectionClosed as error:
            raise closed(error) from error

    def send(self, message: str | bytes) -> None:
        """Raises Closed."""
        try:
            self._connection.send(message)
        except ConnectionClosed as error:
            raise closed(error) from error

    def close(self) -> None:
        self._connection.close()
