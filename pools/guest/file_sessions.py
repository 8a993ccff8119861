"""A connection to a guest agent for one operation on files: from a thread, or from an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import deque
from uuid import UUID

from pools import file_errors, host_processes
from pools.guest import file_frames, frames
from pools.guest.connections import NoAgent, connect

STALL_S = 60.0
"""How long the agent may say nothing while it is asked: the container may be frozen, or its disk slow."""
READ_BYTES = 4 * frames.MAX_CHUNK
FRAMES_AT_ONCE = 200
"""After so many frames without a pause, an event loop serves others: each costs more than its bytes."""


class FileSession:
    """Sends frames and receives them. Whatever the agent answers, it is typed, bounded and timed here."""

    def __init__(self, container_id: UUID, request: bytes) -> None:
        """Raises NoGuestAgent."""
        try:
            connection = connect(container_id, version=2)
        except NoAgent as error:
            raise file_errors.NoGuestAgent from error
        self._connection, self._socket = connection, connection.socket
        self._reader, self._come = connection.reader, deque(connection.early)
        self._is_closed = False
        self.send(request)

    # From a thread --------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Raises FilesStalled. That the agent has hung up shows when its answer is read."""
        self._socket.settimeout(STALL_S)  # an event loop may have used it before
        try:
            self._socket.sendall(data)
        except TimeoutError as error:
            raise self._stalled() from error
        except OSError:
            return

    def receive(self, *expected: bytes) -> tuple[bytes, bytes]:
        """The next frame, of an expected kind. Raises what a refusal stands for, FilesLost, FilesStalled."""
        until = time.monotonic() + STALL_S
        while not self._come:
            self._socket.settimeout(max(0.001, until - time.monotonic()))
            try:
                data = self._socket.recv(READ_BYTES)
            except TimeoutError as error:
                raise self._stalled() from error
            except OSError as error:
                raise self._lost() from error
            self._take(data)
        return self._next(expected)

    # From an event loop ---------------------------------------------------------------------------------

    async def asend(self, data: bytes) -> None:
        """As ``send``."""
        self._socket.setblocking(False)
        try:
            async with asyncio.timeout(STALL_S):
                await asyncio.get_running_loop().sock_sendall(self._socket, data)
        except TimeoutError as error:
            raise self._stalled() from error
        except OSError:
            return

    async def areceive(self, *expected: bytes, idle_s: float | None = None) -> tuple[bytes, bytes] | None:
        """As ``receive``; with ``idle_s``, None after so long without a frame."""
        self._socket.setblocking(False)
        while not self._come:
            try:
                async with asyncio.timeout(STALL_S if idle_s is None else idle_s):
                    data = await asyncio.get_running_loop().sock_recv(self._socket, READ_BYTES)
            except TimeoutError as error:
                if idle_s is not None:
                    return None
                raise self._stalled() from error
            except OSError as error:
                raise self._lost() from error
            self._take(data)
            if len(self._come) > FRAMES_AT_ONCE:
                await asyncio.sleep(0.001 * len(self._come) / FRAMES_AT_ONCE)
        return self._next(expected)

    # ----------------------------------------------------------------------------------------------------

    def _take(self, data: bytes) -> None:
        if not data:
            raise self._lost()
        try:
            self._come.extend(self._reader.split(data))
        except frames.Malformed as error:
            raise self._lost() from error

    def _next(self, expected: tuple[bytes, ...]) -> tuple[bytes, bytes]:
        kind, payload = self._come.popleft()
        try:
            if kind == file_frames.FAILED:
                raise file_frames.error_of(payload)
            if kind == frames.REFUSED:  # an agent that knows no files, or has no room for a process
                raise file_errors.NoGuestAgent
        except frames.Malformed as error:
            raise self._lost() from error
        if kind not in expected:
            raise self._lost()
        return kind, payload

    def _stalled(self) -> file_errors.FilesStalled:
        host_processes.kill_session(self._connection.session, self._connection.process_1)
        self.close()
        return file_errors.FilesStalled()

    def _lost(self) -> file_errors.FilesLost:
        self.close()
        return file_errors.FilesLost()

    def close(self) -> None:
        """Hang up, which ends the operation: an upload that was not finished leaves nothing."""
        if not self._is_closed:
            self._is_closed = True
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()

    def __enter__(self) -> FileSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
