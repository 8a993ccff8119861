# Made of _async/terminals.py by scripts/python-client.sh: change that one.
"""A command's output and input over a WebSocket, which is opened again where it broke."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from boilerhouse_client._sync import platform
from boilerhouse_client._sync.transport import Transport
from boilerhouse_client.answers import Exit
from boilerhouse_client.errors import Throttled, Unreachable
from boilerhouse_client.sockets import Closed
from boilerhouse_client.wire import BUSY, Patience, error_of_close, error_of_end, octets

MESSAGE_BYTES = 32 * 1024


class Terminal:
    """What a command writes, and what is typed.

    One task or thread may read while another one writes. If the connection breaks, output goes on after the last byte
    that came; what was typed in that moment may be lost (``Command.write`` loses nothing).
    """

    def __init__(self, client: Transport, path: str, after: int) -> None:
        self._client, self._path = client, path
        self._lock, self._patience = platform.Lock(), Patience(client.patience_s)
        self._socket: platform.Socket | None = None
        self.position = after
        """The offset of the output so far: where ``attach(after=…)`` would go on."""
        self.exit: Exit | None = None
        """How the command ended; None while it runs."""

    def read(self, timeout_s: float | None = None) -> bytes:
        """The next output as soon as there is some; empty when the command has ended.

        Raises TimeoutError, and as ``Command.output``.
        """
        while self.exit is None:
            socket = self._open()
            try:
                message = socket.receive(timeout_s)
            except Closed as closed:
                self._reopen(socket, closed)
                continue
            if isinstance(message, str):
                self._hear(json.loads(message))
            elif message:
                self._patience.reset()
                self.position += len(message)
                return message
        return b""

    def __iter__(self) -> Iterator[bytes]:
        while data := self.read():
            yield data

    def read_until(self, end: bytes | str, timeout_s: float | None = None) -> bytes:
        """Output until this comes in it, or the command ends; ``timeout_s`` bounds each wait for more."""
        found, wanted = bytearray(), octets(end)
        while wanted not in found and (data := self.read(timeout_s)):
            found += data
        return bytes(found)

    def wait(self) -> Exit:
        """Read and drop what comes until the command has ended."""
        while self.read():
            pass
        assert self.exit is not None
        return self.exit

    def write(self, data: bytes | str) -> None:
        """Type this."""
        given = octets(data)
        for start in range(0, len(given), MESSAGE_BYTES):
            self._send(given[start : start + MESSAGE_BYTES])

    def resize(self, cols: int, rows: int) -> None:
        self._send(json.dumps({"cols": cols, "rows": rows}))

    def signal(self, name: str) -> None:
        """Send ``SIGINT``, ``SIGTERM`` … to the command's process group."""
        self._send(json.dumps({"signal": name}))

    def close_input(self) -> None:
        """End the command's input; on a terminal, type Ctrl-D."""
        self._send(json.dumps({"close": True}))

    # The connection ---------------------------------------------------------------------------------

    def _send(self, message: str | bytes) -> None:
        while self.exit is None:
            socket = self._open()
            try:
                socket.send(message)
                return
            except Closed as closed:
                self._reopen(socket, closed)

    def _open(self) -> platform.Socket:
        """The open connection. Raises ApiError, Unreachable."""
        with self._lock:
            while self._socket is None:
                address = self._client.address(f"{self._path}?after={self.position}")
                try:
                    self._socket = platform.Socket.open(address)
                    self._patience.opened()
                except Closed as closed:
                    if closed.is_final:
                        raise _unreachable(closed) from closed
                    platform.sleep(self._patience.pause_s(_unreachable(closed)))
            return self._socket

    def _reopen(self, socket: platform.Socket, closed: Closed) -> None:
        """The next ``_open`` makes a new connection, unless the other side of this one has done so. Raises ApiError."""
        if error := error_of_close(closed.code, str(closed)):
            raise error
        with self._lock:
            if self._socket is socket:
                self._socket = None
                socket.close()
        if self.exit is None:
            platform.sleep(self._patience.pause_s(_unreachable(closed)))

    def _close(self) -> None:
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None

    def _hear(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind in ("state", "gap"):
            self.position = message["offset"]
        elif kind == "exit":
            self.exit = Exit.of(message)
        elif kind == "end" and not self._is_only_the_connection(message["reason"]):
            raise error_of_end(message)

    def _is_only_the_connection(self, reason: str) -> bool:
        if reason != "lost":
            return False
        status = self._client.call("GET", self._path)
        return bool(status["state"] != "lost")


def _unreachable(closed: Closed) -> Exception:
    if closed.code == BUSY:
        return Throttled(429, {"code": "budget_exceeded", "detail": str(closed)})
    return Unreachable(str(closed))
