"""A command on a terminal, by the guest agent."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Iterator
from uuid import UUID

from pools.guest import frames
from pools.guest.commands import refused
from pools.guest.connections import Connection, connect

LOOK_EVERY_MS = 500
WRITE_S = 5.0
"""A terminal ends if its command does not read its input for this time, once 1 MiB waits."""
SHOWS = {"TERM": "xterm-256color"}


def open_terminal(container_id: UUID, command: tuple[str, ...], columns: int, rows: int) -> AgentTerminal:
    """Run a command on a terminal. Raises NoAgent."""
    connection = connect(container_id)
    try:
        connection.socket.settimeout(WRITE_S)
        connection.socket.sendall(frames.request(command, SHOWS, wants_input=True, size=(columns, rows)))
    except BaseException:
        connection.socket.close()
        raise
    return AgentTerminal(connection, command)


class AgentTerminal:
    """A command on a terminal; hanging up ends it and its children."""

    def __init__(self, connection: Connection, command: tuple[str, ...]) -> None:
        self._connection, self._command = connection, command
        self._exit_code: int | None = None
        self._writing = threading.Lock()
        self._is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        yield from self._shown(self._connection.early)
        ends = self._connection.socket
        poll = select.poll()
        poll.register(ends, select.POLLIN)
        while not self._is_closed and self._exit_code is None:
            if not poll.poll(LOOK_EVERY_MS):
                continue
            try:
                data = ends.recv(frames.MAX_CHUNK)
                if not data:
                    return
                yield from self._shown(self._connection.reader.feed(data))
            except (OSError, frames.Malformed):
                return

    def _shown(self, arrived: Iterator[tuple[bytes, bytes]] | list[tuple[bytes, bytes]]) -> Iterator[bytes]:
        for kind, payload in arrived:
            if kind == frames.STDOUT:
                yield payload
            elif kind == frames.EXIT:
                self._exit_code = frames.end_of(payload)[0]
            elif kind == frames.REFUSED:
                outcome = refused(self._command, *frames.refusal_of(payload), 0)
                self._exit_code = outcome.exit_code
                yield outcome.stderr

    def write(self, data: bytes) -> None:
        for chunk in frames.inputs(data):
            self._send(chunk)

    def resize(self, columns: int, rows: int) -> None:
        self._send(frames.frame(frames.WINDOW, frames.window(columns, rows)))

    def _send(self, data: bytes) -> None:
        with self._writing:
            try:
                self._connection.socket.sendall(data)
            except OSError:  # it has ended, or reads nothing; after half a frame no other can follow
                with contextlib.suppress(OSError):
                    self._connection.socket.shutdown(socket.SHUT_RDWR)

    def exit_code(self) -> int | None:
        return self._exit_code

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        with contextlib.suppress(OSError):
            self._connection.socket.shutdown(socket.SHUT_RDWR)
        self._connection.socket.close()
