"""The connection of an attached command: output frames in, input bytes out, over one hijacked connection."""

from __future__ import annotations

import contextlib
import io
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

LOOK_EVERY_S = 0.25
"""How often to check whether a silent command has ended: its background processes may hold the output open."""
ASK_ANYWAY_S, DRAIN_S = 1.0, 1.0
"""Background processes may also keep printing: then check this often, and read for this long afterwards."""
LINGER_S = 0.05
CHUNK = 65536


def early_bytes(reader: io.BufferedReader, connection: socket.socket) -> bytearray:
    """Bytes that arrived with the response's head: they are in the response's buffer, not in the socket."""
    connection.settimeout(0)
    try:
        return bytearray(reader.read1(len(reader.peek(1)))) if reader.peek(1) else bytearray()
    finally:
        connection.settimeout(None)


def hang_up(stream: Any, connection: socket.socket) -> None:
    """Close the connection of a command. ``stream`` is the client library's, ``connection`` the socket below it.

    Closing the stream alone leaves the socket open until the garbage collector runs, because the library's response and
    stream refer to each other. Until then an engine that has output left to send does not process that the command has
    ended, nor the end of anything else in the container: no other command and no stop of the container would finish.
    """
    with contextlib.suppress(OSError):  # the engine has closed it already
        connection.shutdown(socket.SHUT_RDWR)
    stream.close()
    connection.close()


class Attached:
    """Communicates with one command until it ends. ``is_running`` queries the engine if nothing arrives for a while."""

    def __init__(self, reader: io.BufferedReader, connection: socket.socket, is_running: Callable[[], bool]) -> None:
        self._connection, self._is_running = connection, is_running
        self._data = early_bytes(reader, connection)
        self.stdout, self.stderr = bytearray(), bytearray()
        self.stdout_truncated = self.stderr_truncated = False

    def run(self, stdin: bytes | None, deadline: float, limit_bytes: int) -> None:
        """Feed ``stdin`` and collect output, ``limit_bytes`` of each stream, until the command ends.

        Raises TimeoutError at ``deadline`` (monotonic); the output so far is kept.
        """
        if stdin is not None:
            threading.Thread(target=self._feed, args=(stdin,), name="exec-stdin", daemon=True).start()
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        wait, has_ended, asked_at = LOOK_EVERY_S, False, time.monotonic()
        while True:
            self._take_frames(limit_bytes)
            now = time.monotonic()
            remaining_s = deadline - now
            if has_ended and now - asked_at > DRAIN_S:
                return
            if remaining_s <= 0:
                raise TimeoutError
            if poll.poll(1000 * min(remaining_s, LINGER_S if has_ended else wait)):
                chunk = self._connection.recv(CHUNK)
                if not chunk:
                    return
                self._data += chunk
                wait = LOOK_EVERY_S
                if has_ended or now - asked_at < ASK_ANYWAY_S:
                    continue
            elif has_ended:
                return
            has_ended = not self._is_running()
            wait, asked_at = min(2.0, wait * 1.5), time.monotonic()

    def _feed(self, stdin: bytes) -> None:
        with contextlib.suppress(OSError):  # it ended or closed its input without reading all
            self._connection.sendall(stdin)
            self._connection.shutdown(socket.SHUT_WR)

    def _take_frames(self, limit_bytes: int) -> None:
        """Docker's multiplexed stream: 8 bytes of header (channel, length), then the payload."""
        data = self._data
        while len(data) >= 8 and len(data) >= 8 + (size := int.from_bytes(data[4:8], "big")):
            is_error = data[0] == 2
            output = self.stderr if is_error else self.stdout
            room = limit_bytes - len(output)
            output += data[8 : 8 + min(size, room)]
            if size > room and is_error:
                self.stderr_truncated = True
            elif size > room:
                self.stdout_truncated = True
            del data[: 8 + size]
