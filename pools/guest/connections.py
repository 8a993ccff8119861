"""Connections to a container's guest agent: on the way there, nothing that a tenant could plant is followed."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
import time
from pathlib import Path
from uuid import UUID

from pools.guest import frames
from pools.guest.paths import SOCKET, run_dir

SEALED = 4_294_967_293
"""The uid that owns a sealed directory; no container runs as it, not even one whose user is root."""
HELLO_S = 5.0
"""How long an agent may take to answer: its container may be frozen for a save."""
MAX_HELLO = 64
CROWDED_S = 0.05
"""How long to retry while its queue of connections is full."""
_CREDENTIALS = struct.Struct("3i")
_HANDLE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class NoAgent(Exception):
    """The container has no agent that answers; nothing was asked of it."""


class Connection:
    """A connection over which the agent has said hello. ``session`` is the pid that the kernel stamped on that.

    0 if that process is not visible from here.
    """

    def __init__(
        self,
        connection: socket.socket,
        session: int,
        version: int,
        early: list[tuple[bytes, bytes]],
        reader: frames.Reader,
    ) -> None:
        self.socket, self.session, self.version = connection, session, version
        self.early, self.reader = early, reader
        self.process_1 = peer(connection)[0]


def open_socket(directory: Path, *, is_sealed: bool, within_s: float | None = None) -> socket.socket:
    """A connection to the socket in this directory. Raises NoAgent."""
    with contextlib.ExitStack() as stack:
        try:
            at = os.open(directory, _HANDLE | os.O_DIRECTORY)
            stack.callback(os.close, at)
            if is_sealed and os.fstat(at).st_uid != SEALED:
                raise NoAgent("its directory is not sealed")
            handle = os.open(SOCKET, _HANDLE, dir_fd=at)
        except OSError as error:
            raise NoAgent(str(error)) from error
        stack.callback(os.close, handle)
        if not stat.S_ISSOCK(os.fstat(handle).st_mode):
            raise NoAgent("something else is in the place of its socket")
        return _connected(f"/proc/self/fd/{handle}", HELLO_S if within_s is None else within_s)


def _connected(path: str, within_s: float) -> socket.socket:
    until = time.monotonic() + CROWDED_S
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            connection.settimeout(within_s)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            connection.connect(path)
        except OSError as error:
            connection.close()
            if error.errno != errno.EAGAIN or time.monotonic() > until:
                raise NoAgent(str(error)) from error
            time.sleep(0.005)
        else:
            return connection


def peer(connection: socket.socket) -> tuple[int, int]:
    """The pid and uid of the process that listens at the other end, by the kernel."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return pid, uid


def connect(container_id: UUID, version: int = 1, within_s: float | None = None) -> Connection:
    """A connection to the container's agent, which speaks this version of the protocol.

    Raises NoAgent, also if the agent does not answer within ``within_s`` seconds (by default ``HELLO_S``).
    """
    return connect_at(run_dir(container_id), version, within_s)


def connect_at(directory: Path, version: int = 1, within_s: float | None = None) -> Connection:
    """The same by the directory of the agent's socket."""
    connection = open_socket(directory, is_sealed=True, within_s=within_s)
    try:
        greeted = _greeted(connection, HELLO_S if within_s is None else within_s)
        if greeted.version < version:
            raise NoAgent(f"it speaks version {greeted.version} of the protocol, not {version}")
        return greeted
    except (OSError, frames.Malformed) as error:
        connection.close()
        raise NoAgent(str(error)) from error
    except NoAgent:
        connection.close()
        raise


def _greeted(connection: socket.socket, within_s: float) -> Connection:
    """Read the hello. The buffer for ancillary data has room for credentials only, so no descriptor comes in."""
    reader, session, greetings = frames.Reader(MAX_HELLO), 0, list[tuple[bytes, bytes]]()
    until = time.monotonic() + within_s
    while not greetings:
        connection.settimeout(max(0.001, until - time.monotonic()))  # in all, however slowly its bytes come
        data, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(_CREDENTIALS.size))
        if not data:
            raise NoAgent("it hung up")
        for level, kind, value in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                session = _CREDENTIALS.unpack(value[: _CREDENTIALS.size])[0]
        greetings += reader.feed(data)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
    if greetings[0][0] != frames.HELLO:
        raise NoAgent("it is busy" if greetings[0][0] == frames.REFUSED else "it did not say hello")
    reader.max_payload = frames.MAX_PAYLOAD
    return Connection(connection, session, frames.version_of(greetings[0][1]), greetings[1:], reader)
