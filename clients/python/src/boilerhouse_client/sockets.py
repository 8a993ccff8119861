"""How a WebSocket of either client is opened and how it ends."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed, InvalidStatus, InvalidURI

from boilerhouse_client.wire import CONNECT_S

PING_S = 20.0


class Closed(Exception):
    """A WebSocket has ended, or could not be opened; ``code`` is 1006 unless the server said one.

    ``is_final``: another attempt would end in the same way.
    """

    def __init__(self, code: int, reason: str, *, is_final: bool = False) -> None:
        self.code, self.is_final = code, is_final
        super().__init__(reason or f"The WebSocket has ended with code {code}.")


@dataclass(frozen=True)
class Address:
    """Where a WebSocket leads, and what is sent along."""

    url: str
    headers: dict[str, str]
    tls: ssl.SSLContext | None

    def options(self, opened: socket.socket) -> dict[str, Any]:
        """Arguments of ``connect``. With a connection of our own no redirect is followed."""
        return {
            "sock": opened, "additional_headers": self.headers, "proxy": None, "compression": None,
            "open_timeout": CONNECT_S, "close_timeout": 1, "ping_interval": PING_S, "ping_timeout": PING_S,
            "max_size": None,
            **({"ssl": self.tls, "server_hostname": urlsplit(self.url).hostname} if self.tls else {}),
        }  # fmt: skip


def open_connection(address: Address) -> socket.socket:
    """Raises OSError."""
    parts = urlsplit(address.url)
    opened = socket.create_connection((parts.hostname, parts.port or (443 if address.tls else 80)), CONNECT_S)
    opened.settimeout(None)  # that was for connecting; a terminal may be quiet for any time
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a key that is typed is not held back
    return opened


def closed(error: ConnectionClosed) -> Closed:
    return Closed(error.rcvd.code, error.rcvd.reason) if error.rcvd else Closed(1006, "The connection broke.")


def not_opened(url: str, error: Exception) -> Closed:
    """A redirect, and a server that answers 4xx, would end every attempt.

    websockets refuses a redirect with a ValueError, or because its address is not that of a WebSocket.
    """
    is_final = isinstance(error, ValueError | InvalidURI)
    if isinstance(error, InvalidStatus):
        is_final = error.response.status_code < 500
    return Closed(1006, f"{url} does not open: {error}", is_final=is_final)
