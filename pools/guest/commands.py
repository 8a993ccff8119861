"""Commands by the guest agent."""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from uuid import UUID

from pools import errors, host_processes
from pools.guest import frames
from pools.guest.connections import Connection, NoAgent, connect, connect_at
from pools.runtime.base import Executed

NOT_EXECUTABLE, NOT_FOUND = 126, 127
GRACE_S = 8.0
"""How much longer than its command an agent may take to report the end: its container may be frozen meanwhile."""
MAX_NAME = 200


def run(
    container_id: UUID,
    command: tuple[str, ...],
    timeout_ms: int,
    stdin: bytes | None = None,
    limit_bytes: int = 1 << 20,
) -> Executed:
    """Run a command and wait until it ends, as ``ContainerRuntime.exec``.

    Raises NoAgent if nothing has run: the engine may be asked instead. Raises ExecTimedOut, CommandLost.
    """
    return _run(partial(connect, container_id), command, timeout_ms, stdin, limit_bytes)


def run_at(directory: Path, command: tuple[str, ...], timeout_ms: int, *, limit_bytes: int) -> Executed:
    """The same by the directory of the agent's socket, for a container without a row."""
    return _run(partial(connect_at, directory), command, timeout_ms, None, limit_bytes)


def _run(
    open_connection: Callable[[], Connection],
    command: tuple[str, ...],
    timeout_ms: int,
    stdin: bytes | None,
    limit_bytes: int,
) -> Executed:
    began = time.monotonic()
    try:
        request = frames.request(command, wants_input=stdin is not None, timeout_ms=timeout_ms)
    except ValueError as error:
        raise NoAgent(str(error)) from error
    connection = open_connection()
    with connection.socket:
        exchange = Exchange(connection, request, stdin, limit_bytes)
        try:
            return exchange.result(command, began, began + timeout_ms / 1000 + GRACE_S)
        except TimeoutError as error:
            is_killed = host_processes.kill_session(connection.session, connection.process_1)
            raise exchange.late(timeout_ms, is_killed=is_killed) from error
        except frames.Malformed as error:
            raise errors.CommandLost(f"The guest agent of the container sent {error}.") from error


class Exchange:
    """One command over one connection: input goes out while output comes in, of which the first bytes are kept."""

    def __init__(self, connection: Connection, request: bytes, stdin: bytes | None, limit_bytes: int) -> None:
        self._connection, self._limit = connection, limit_bytes
        self._stdout, self._stderr = bytearray(), bytearray()
        self._is_cut = {frames.STDOUT: False, frames.STDERR: False}
        outgoing = request
        if stdin is not None:
            outgoing += b"".join(frames.inputs(stdin)) + frames.frame(frames.INPUT_END)
        self._outgoing = memoryview(outgoing)

    def result(self, command: tuple[str, ...], began: float, deadline: float) -> Executed:
        """Raises NoAgent, CommandLost, ExecTimedOut, TimeoutError at ``deadline`` (monotonic), Malformed."""
        for kind, payload in self._frames(deadline):
            if kind in self._is_cut:
                self._keep(kind, payload)
            elif kind == frames.EXIT:
                code, is_late = frames.end_of(payload)
                took_ms = round((time.monotonic() - began) * 1000)
                if is_late:
                    raise self.late(round((deadline - began - GRACE_S) * 1000), is_killed=True)
                out, err = bytes(self._stdout), bytes(self._stderr)
                return Executed(code, out, err, took_ms, self._is_cut[frames.STDOUT], self._is_cut[frames.STDERR])
            elif kind == frames.REFUSED:
                took_ms = round((time.monotonic() - began) * 1000)
                return refused(command, *frames.refusal_of(payload), took_ms)
            else:
                raise frames.Malformed(f"a frame of the unknown kind {kind!r}")
        raise errors.CommandLost

    def late(self, timeout_ms: int, *, is_killed: bool) -> errors.ExecTimedOut:
        how = "and was killed." if is_killed else "; it could not be killed and runs until the container is released."
        detail = f"The command did not end within {timeout_ms} ms{' ' if is_killed else ''}{how}"
        return errors.ExecTimedOut(
            detail, bytes(self._stdout), bytes(self._stderr),
            stdout_truncated=self._is_cut[frames.STDOUT], stderr_truncated=self._is_cut[frames.STDERR],
        )  # fmt: skip

    def _keep(self, kind: bytes, payload: bytes) -> None:
        output = self._stderr if kind == frames.STDERR else self._stdout
        room = self._limit - len(output)
        output += payload[: max(0, room)]
        self._is_cut[kind] |= len(payload) > room

    def _frames(self, deadline: float) -> Iterator[tuple[bytes, bytes]]:
        yield from self._connection.early
        ends = self._connection.socket
        ends.setblocking(False)
        poll = select.poll()
        poll.register(ends, select.POLLIN | select.POLLOUT)
        while True:
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                raise TimeoutError
            ready = poll.poll(1000 * remaining_s)
            if ready and ready[0][1] & select.POLLOUT and self._outgoing:
                self._send(ends)
                if not self._outgoing:
                    poll.modify(ends, select.POLLIN)
            if ready and ready[0][1] & ~select.POLLOUT:
                data = self._received(ends)
                if data == b"":
                    return
                if data:
                    yield from self._connection.reader.feed(data)

    def _send(self, ends: socket.socket) -> None:
        try:
            self._outgoing = self._outgoing[ends.send(self._outgoing) :]
        except BlockingIOError:
            return
        except OSError:  # the reader sees what its end said before it hung up
            self._outgoing = memoryview(b"")

    def _received(self, ends: socket.socket) -> bytes | None:
        """None: nothing yet; empty: the end."""
        try:
            return ends.recv(4 * frames.MAX_CHUNK)
        except BlockingIOError:
            return None
        except OSError:
            return b""


def refused(command: tuple[str, ...], stage: bytes, number: int, duration_ms: int) -> Executed:
    """The result of a command that could not start, as a shell reports it.

    Raises NoAgent if the engine may be able to start it.
    """
    if stage not in (frames.AT_DIRECTORY, frames.AT_EXECVE):
        raise NoAgent(f"it cannot run anything: {os.strerror(number)}")
    code, why = _meaning(stage, number, command[0])
    name = "".join(char if char.isprintable() else "?" for char in command[0][:MAX_NAME]) or '""'
    words = f"{name}: {why}"
    return Executed(code, b"", f"{words}\n".encode(errors="replace"), duration_ms, refusal=words)


def _meaning(stage: bytes, number: int, name: str) -> tuple[int, str]:
    if stage == frames.AT_DIRECTORY:
        return NOT_EXECUTABLE, "the container's user cannot enter the working directory"
    match number:
        case errno.ENOENT | errno.ENOTDIR if "/" not in name:
            return NOT_FOUND, "command not found"
        case errno.ENOENT | errno.ENOTDIR:
            return NOT_FOUND, "no such file, or its interpreter does not exist"
        case errno.EISDIR:
            return NOT_EXECUTABLE, "is a directory"
        case errno.ENOEXEC:
            return NOT_EXECUTABLE, "is not a program that this machine can run"
        case errno.EACCES:
            return NOT_EXECUTABLE, "permission denied: the container's user may not execute it"
    return NOT_EXECUTABLE, f"could not be started: {os.strerror(number)}"
