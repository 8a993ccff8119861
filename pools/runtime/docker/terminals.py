"""A command on a terminal."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Iterator
from typing import Any

import docker
from boilerhouse.core.errors import BoilerhouseError
from pools import host_processes
from pools.runtime.docker.attached import early_bytes, hang_up
from pools.runtime.docker.translation import translated


class AttachedTerminal:
    """A command on a terminal, over one hijacked connection."""

    LOOK_EVERY_MS = 500
    WRITE_S = 5.0
    """Input for a command that does not read it is dropped after this time."""

    def __init__(self, api: docker.APIClient, exec_id: str, stream: Any) -> None:
        self._api, self._exec_id, self._stream = api, exec_id, stream
        self._connection: socket.socket = getattr(stream, "_sock", stream)
        self._early = early_bytes(stream._response.raw._fp.fp, self._connection)
        self._connection.settimeout(self.WRITE_S)
        self._is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        if self._early:
            yield bytes(self._early)
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        while not self._is_closed:
            if not poll.poll(self.LOOK_EVERY_MS):
                continue
            try:
                chunk = self._connection.recv(65536)
            except OSError:
                return
            if not chunk:
                return
            yield chunk

    def write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # it has ended; the reader will notice
            self._connection.sendall(data)

    def resize(self, columns: int, rows: int) -> None:
        with contextlib.suppress(BoilerhouseError), translated():  # it has ended
            self._api.exec_resize(self._exec_id, height=rows, width=columns)

    def exit_code(self) -> int | None:
        with contextlib.suppress(BoilerhouseError), translated():
            code = self._api.exec_inspect(self._exec_id)["ExitCode"]
            return int(code) if code is not None else None
        return None

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        with contextlib.suppress(BoilerhouseError), translated():
            state = self._api.exec_inspect(self._exec_id)
            if state["Running"]:
                host_processes.kill_tree(state["Pid"], state["ContainerID"])
        hang_up(self._stream, self._connection)
