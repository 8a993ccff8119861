"""Commands in a container."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Any

import docker.errors

import docker
from pools import errors, host_processes
from pools.runtime.base import Executed, Terminal
from pools.runtime.docker import refusals
from pools.runtime.docker.attached import Attached, hang_up
from pools.runtime.docker.engine import Engine
from pools.runtime.docker.terminals import AttachedTerminal
from pools.runtime.docker.translation import translated, words_of

STANDS_STILL_S = 5.0
"""How long a command waits for a container that is frozen for a save."""


class Commands(Engine):
    """Runs commands in a container."""

    def terminal(self, name: str, command: tuple[str, ...], columns: int, rows: int) -> Terminal:
        with translated():
            api = self._api()
            environment = {"TERM": "xterm-256color"}
            created = api.exec_create(name, list(command), stdin=True, tty=True, environment=environment)
            stream: Any = api.exec_start(created["Id"], tty=True, socket=True)
            terminal = AttachedTerminal(api, created["Id"], stream)
            with contextlib.suppress(docker.errors.APIError):  # it has ended already
                api.exec_resize(created["Id"], height=rows, width=columns)
            return terminal

    def exec(
        self,
        name: str,
        command: tuple[str, ...],
        timeout_ms: int,
        stdin: bytes | None = None,
        limit_bytes: int = 1 << 20,
    ) -> Executed:
        until = time.monotonic() + STANDS_STILL_S
        while True:
            with translated():
                try:
                    result, has_begun = self._exec(name, command, timeout_ms, stdin, limit_bytes)
                except docker.errors.APIError as error:
                    if "is paused" not in words_of(error) or time.monotonic() > until:
                        raise
                else:
                    if has_begun or time.monotonic() > until:
                        return result
            time.sleep(0.02)

    def _exec(
        self, name: str, command: tuple[str, ...], timeout_ms: int, stdin: bytes | None, limit_bytes: int
    ) -> tuple[Executed, bool]:
        """The result, and whether the command started: the engine starts none while the container is frozen."""
        started = time.monotonic()
        api = self._api()
        exec_id = api.exec_create(name, list(command), stdin=stdin is not None)["Id"]
        try:
            stream: Any = api.exec_start(exec_id, socket=True)
        except docker.errors.APIError as error:
            if refused := refusals.executed(words_of(error), command, _ms_since(started)):
                return refused, True
            raise

        def is_running() -> bool:
            return bool(api.exec_inspect(exec_id)["Running"])

        connection: socket.socket = getattr(stream, "_sock", stream)
        attached = Attached(stream._response.raw._fp.fp, connection, is_running)
        try:
            attached.run(stdin, started + timeout_ms / 1000, limit_bytes)
        except TimeoutError as error:
            raise errors.ExecTimedOut(
                self._kill(api, exec_id, timeout_ms),
                bytes(attached.stdout),
                bytes(attached.stderr),
                stdout_truncated=attached.stdout_truncated,
                stderr_truncated=attached.stderr_truncated,
            ) from error
        finally:
            hang_up(stream, connection)
        state = api.exec_inspect(exec_id)
        out, err = bytes(attached.stdout), bytes(attached.stderr)
        exit_code = -1 if state["ExitCode"] is None else state["ExitCode"]
        if exit_code and not state["Pid"]:
            if b"cannot exec in a paused container" in out:
                return Executed(exit_code, out, err, _ms_since(started)), False
            if refused := refusals.executed((out or err).decode(errors="replace"), command, _ms_since(started)):
                return refused, True
        cut = attached.stdout_truncated, attached.stderr_truncated
        result = Executed(exit_code, out, err, _ms_since(started), *cut)
        return refusals.at_execve(result, command) or result, True

    def _kill(self, api: docker.APIClient, exec_id: str, timeout_ms: int) -> str:
        """Kill the command with its children and describe the result; the engine has no operation for that."""
        state = api.exec_inspect(exec_id)
        late = f"The command did not end within {timeout_ms} ms"
        if not state["Running"]:
            return f"{late}; it has ended in the meantime."
        if host_processes.kill_tree(state["Pid"], state["ContainerID"]):
            return f"{late} and was killed."
        return f"{late}; it could not be killed from here and runs until the container is released."


def _ms_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
