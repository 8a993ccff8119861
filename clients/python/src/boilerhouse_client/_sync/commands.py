# Made of _async/commands.py by scripts/python-client.sh: change that one.
"""Commands in a container: run and waited for, or started and followed."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from boilerhouse_client._sync import platform
from boilerhouse_client._sync.terminals import Terminal
from boilerhouse_client._sync.transport import Transport
from boilerhouse_client.answers import CommandResult, CommandStatus, Exit, Gap, Output
from boilerhouse_client.errors import ApiError, Conflict, Unreachable
from boilerhouse_client.sse import ServerEvent
from boilerhouse_client.wire import (
    INPUT_BYTES,
    SHELL,
    Callback,
    Collected,
    Patience,
    Words,
    command_body,
    error_of_end,
    may_pass,
    octets,
    result_of,
    text,
)


class Command:
    """A command that was started. It needs no reader, and goes on when this object, or this program, is gone."""

    def __init__(self, client: Transport, base: str, id: str) -> None:
        self._client, self.id = client, id
        self._path = f"{base}/commands/{id}"

    def status(self) -> CommandStatus:
        return CommandStatus.of(self._client.call("GET", self._path))

    def output(self, after: int = 0) -> Iterator[Output | Gap | Exit]:
        """What it writes after this offset, and its exit last. A broken connection is made again where it broke.

        Raises Conflict when the tenant no longer holds the container, Unauthorized when the key is revoked, Failed
        (``command_lost``), and Unreachable when the server stays away for the client's ``patience_s``.
        """
        position, patience = after, Patience(self._client.patience_s)
        while True:
            broken: Exception | None = None
            query = {"after": position, "encoding": "base64"}
            try:
                with platform.closing(self._client.events_of(f"{self._path}/output", query)) as events:
                    for event in events:
                        if event.name == "end":
                            self._refuse_unless_it_goes_on(event)
                            break
                        item = _item(event)
                        if item is None:
                            patience.opened()
                            continue
                        patience.reset()
                        yield item
                        if isinstance(item, Exit):
                            return
                        position = item.offset
            except Unreachable as error:
                broken = error
            except ApiError as error:
                if not may_pass(error):
                    raise
                broken = error
            platform.sleep(patience.pause_s(broken))

    def _refuse_unless_it_goes_on(self, end: ServerEvent) -> None:
        """``lost`` is only the connection, if the command's state is another one."""
        if end.data["reason"] != "lost" or (self.status()).state == "lost":
            raise error_of_end(end.data)

    def wait(
        self, *, after: int = 0, on_stdout: Callback | None = None, on_stderr: Callback | None = None
    ) -> CommandResult:
        """Follow it to its end. The result has the first MiB of each stream; the callbacks get all text as it comes.

        Raises TimedOut if it was killed after its time, and as ``output``.
        """
        collected = Collected(self.id, on_stdout, on_stderr)
        with platform.closing(self.output(after)) as items:
            for item in items:
                if isinstance(item, Exit):
                    return collected.result(item)
                collected.take(item)
        raise AssertionError("output ends with an exit")

    def write(self, data: bytes | str) -> None:
        """Write to its input. Raises Conflict (``input_closed``, ``command_ended``)."""
        given = octets(data)
        for start in range(0, len(given), INPUT_BYTES):
            body = {"data": text(given[start : start + INPUT_BYTES]), "encoding": "base64"}
            self._client.call("POST", f"{self._path}/stdin", body)

    def close_input(self) -> None:
        """End its input; of a terminal, type Ctrl-D."""
        self._client.call("POST", f"{self._path}/stdin", {"close": True})

    def signal(self, name: str) -> None:
        """Send ``SIGINT``, ``SIGTERM`` … to its process group."""
        self._client.call("POST", f"{self._path}/signal", {"signal": name})

    def resize(self, cols: int, rows: int) -> None:
        """Resize its terminal."""
        self._client.call("POST", f"{self._path}/resize", {"cols": cols, "rows": rows})

    def kill(self) -> None:
        """Kill it and all that it has started; nothing happens if all of that has ended."""
        self._client.call("DELETE", self._path)

    @contextmanager
    def attach(self, after: int = 0) -> Iterator[Terminal]:
        """Its output and input over one WebSocket. At the end of the block the command goes on."""
        terminal = Terminal(self._client, self._path, after)
        terminal._open()
        try:
            yield terminal
        finally:
            terminal._close()


class Commands:
    """The commands of one container."""

    def __init__(self, client: Transport, base: str) -> None:
        self._client, self._base = client, base

    def run(
        self,
        command: Words,
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes | str | None = None,
        timeout_s: float | None = 60,
        on_stdout: Callback | None = None,
        on_stderr: Callback | None = None,
    ) -> CommandResult:
        """Run a program with its arguments, or a script (one text, by ``/bin/sh -c``), and wait for its end.

        With a callback, its output is followed while it comes, as text. After ``timeout_s`` (None: never) the command
        and its children are killed. Raises TimedOut, whose ``stdout_bytes`` and ``stderr_bytes`` are what it had
        printed, and ApiError. If a callback raises, the command is killed.
        """
        given = None if stdin is None else octets(stdin)
        is_long = given is not None and len(given) > INPUT_BYTES
        if timeout_s is None or on_stdout or on_stderr or is_long:
            started = self.start(command, cwd=cwd, env=env, stdin=None if given is None else b"", timeout_s=timeout_s)
            return _finish(started, given, on_stdout, on_stderr)
        body = command_body(command, cwd=cwd, env=env, stdin=given, timeout_s=timeout_s)
        answer = self._client.call("POST", f"{self._base}/commands", body, wait_s=timeout_s)
        if "exitCode" in answer:
            return result_of(answer)
        return self.get(answer["commandId"]).wait()

    def start(
        self,
        command: Words,
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes | str | None = None,
        timeout_s: float | None = None,
        tty: tuple[int, int] | None = None,
    ) -> Command:
        """Start a command and leave it running.

        Its input stays open if ``stdin`` is given (``""`` if there is none yet). ``tty``: columns and rows of its
        terminal. Raises Conflict (``needs_guest_agent``), Throttled (``too_many_commands``), ApiError.
        """
        more = {"tty": {"cols": tty[0], "rows": tty[1]}} if tty else {}
        body = command_body(command, cwd=cwd, env=env, stdin=stdin, timeout_s=timeout_s, wait=False, **more)
        answer = self._client.call("POST", f"{self._base}/commands", body)
        return self.get(answer["commandId"])

    def get(self, command_id: str) -> Command:
        """A command of which only the id is known, perhaps started by another program. Nothing is asked yet."""
        return Command(self._client, self._base, command_id)

    def list(self) -> list[CommandStatus]:
        """Those that run and those that ended in the last ten minutes, newest first."""
        answer = self._client.call("GET", f"{self._base}/commands")
        return [CommandStatus.of(item) for item in answer["items"]]

    @contextmanager
    def terminal(
        self,
        command: Words = SHELL,
        *,
        cols: int = 80,
        rows: int = 24,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Iterator[Terminal]:
        """A shell, or another command, on a terminal. At the end of the block it is killed."""
        started = self.start(command, cwd=cwd, env=env, tty=(cols, rows))
        try:
            with started.attach() as terminal:
                yield terminal
        finally:
            with suppress(ApiError, Unreachable):  # the release of the container ends it too
                started.kill()


def _finish(
    command: Command, stdin: bytes | None, on_stdout: Callback | None, on_stderr: Callback | None
) -> CommandResult:
    """Give it its input, and follow it."""
    try:
        if stdin is not None:
            try:
                command.write(stdin)
                command.close_input()
            except Conflict as error:
                if error.code not in ("input_closed", "command_ended"):  # it did not want all of it
                    raise
        return command.wait(on_stdout=on_stdout, on_stderr=on_stderr)
    except (ApiError, Unreachable):
        raise
    except BaseException:
        with suppress(ApiError, Unreachable):
            command.kill()
        raise


def _item(event: ServerEvent) -> Output | Gap | Exit | None:
    if event.name in ("stdout", "stderr"):
        data = base64.b64decode(event.data["data"])
        return Output("stderr" if event.name == "stderr" else "stdout", data, event.data["offset"])
    if event.name == "gap":
        return Gap(event.data["offset"])
    return Exit.of(event.data) if event.name == "exit" else None
