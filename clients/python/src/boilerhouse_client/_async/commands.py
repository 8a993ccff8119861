"""Commands in a container: run and waited for, or started and followed."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

from boilerhouse_client._async import platform
from boilerhouse_client._async.terminals import AsyncTerminal
from boilerhouse_client._async.transport import AsyncTransport
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


class AsyncCommand:
    """A command that was started. It needs no reader, and goes on when this object, or this program, is gone."""

    def __init__(self, client: AsyncTransport, base: str, id: str) -> None:
        self._client, self.id = client, id
        self._path = f"{base}/commands/{id}"

    async def status(self) -> CommandStatus:
        return CommandStatus.of(await self._client.call("GET", self._path))

    async def output(self, after: int = 0) -> AsyncIterator[Output | Gap | Exit]:
        """What it writes after this offset, and its exit last. A broken connection is made again where it broke.

        Raises Conflict when the tenant no longer holds the container, Unauthorized when the key is revoked, Failed
        (``command_lost``), and Unreachable when the server stays away for the client's ``patience_s``.
        """
        position, patience = after, Patience(self._client.patience_s)
        while True:
            broken: Exception | None = None
            query = {"after": position, "encoding": "base64"}
            try:
                async with platform.closing(self._client.events_of(f"{self._path}/output", query)) as events:
                    async for event in events:
                        if event.name == "end":
                            await self._refuse_unless_it_goes_on(event)
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
            await platform.sleep(patience.pause_s(broken))

    async def _refuse_unless_it_goes_on(self, end: ServerEvent) -> None:
        """``lost`` is only the connection, if the command's state is another one."""
        if end.data["reason"] != "lost" or (await self.status()).state == "lost":
            raise error_of_end(end.data)

    async def wait(
        self, *, after: int = 0, on_stdout: Callback | None = None, on_stderr: Callback | None = None
    ) -> CommandResult:
        """Follow it to its end. The result has the first MiB of each stream; the callbacks get all text as it comes.

        Raises TimedOut if it was killed after its time, and as ``output``.
        """
        collected = Collected(self.id, on_stdout, on_stderr)
        async with platform.closing(self.output(after)) as items:
            async for item in items:
                if isinstance(item, Exit):
                    return collected.result(item)
                collected.take(item)
        raise AssertionError("output ends with an exit")

    async def write(self, data: bytes | str) -> None:
        """Write to its input. Raises Conflict (``input_closed``, ``command_ended``)."""
        given = octets(data)
        for start in range(0, len(given), INPUT_BYTES):
            body = {"data": text(given[start : start + INPUT_BYTES]), "encoding": "base64"}
            await self._client.call("POST", f"{self._path}/stdin", body)

    async def close_input(self) -> None:
        """End its input; of a terminal, type Ctrl-D."""
        await self._client.call("POST", f"{self._path}/stdin", {"close": True})

    async def signal(self, name: str) -> None:
        """Send ``SIGINT``, ``SIGTERM`` … to its process group."""
        await self._client.call("POST", f"{self._path}/signal", {"signal": name})

    async def resize(self, cols: int, rows: int) -> None:
        """Resize its terminal."""
        await self._client.call("POST", f"{self._path}/resize", {"cols": cols, "rows": rows})

    async def kill(self) -> None:
        """Kill it and all that it has started; nothing happens if all of that has ended."""
        await self._client.call("DELETE", self._path)

    @asynccontextmanager
    async def attach(self, after: int = 0) -> AsyncIterator[AsyncTerminal]:
        """Its output and input over one WebSocket. At the end of the block the command goes on."""
        terminal = AsyncTerminal(self._client, self._path, after)
        await terminal._open()
        try:
            yield terminal
        finally:
            await terminal._close()


class AsyncCommands:
    """The commands of one container."""

    def __init__(self, client: AsyncTransport, base: str) -> None:
        self._client, self._base = client, base

    async def run(
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
            started = await self.start(
                command, cwd=cwd, env=env, stdin=None if given is None else b"", timeout_s=timeout_s
            )
            return await _finish(started, given, on_stdout, on_stderr)
        body = command_body(command, cwd=cwd, env=env, stdin=given, timeout_s=timeout_s)
        answer = await self._client.call("POST", f"{self._base}/commands", body, wait_s=timeout_s)
        if "exitCode" in answer:
            return result_of(answer)
        return await self.get(answer["commandId"]).wait()

    async def start(
        self,
        command: Words,
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes | str | None = None,
        timeout_s: float | None = None,
        tty: tuple[int, int] | None = None,
    ) -> AsyncCommand:
        """Start a command and leave it running.

        Its input stays open if ``stdin`` is given (``""`` if there is none yet). ``tty``: columns and rows of its
        terminal. Raises Conflict (``needs_guest_agent``), Throttled (``too_many_commands``), ApiError.
        """
        more = {"tty": {"cols": tty[0], "rows": tty[1]}} if tty else {}
        body = command_body(command, cwd=cwd, env=env, stdin=stdin, timeout_s=timeout_s, wait=False, **more)
        answer = await self._client.call("POST", f"{self._base}/commands", body)
        return self.get(answer["commandId"])

    def get(self, command_id: str) -> AsyncCommand:
        """A command of which only the id is known, perhaps started by another program. Nothing is asked yet."""
        return AsyncCommand(self._client, self._base, command_id)

    async def list(self) -> list[CommandStatus]:
        """Those that run and those that ended in the last ten minutes, newest first."""
        answer = await self._client.call("GET", f"{self._base}/commands")
        return [CommandStatus.of(item) for item in answer["items"]]

    @asynccontextmanager
    async def terminal(
        self,
        command: Words = SHELL,
        *,
        cols: int = 80,
        rows: int = 24,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> AsyncIterator[AsyncTerminal]:
        """A shell, or another command, on a terminal. At the end of the block it is killed."""
        started = await self.start(command, cwd=cwd, env=env, tty=(cols, rows))
        try:
            async with started.attach() as terminal:
                yield terminal
        finally:
            with suppress(ApiError, Unreachable):  # the release of the container ends it too
                await started.kill()


async def _finish(
    command: AsyncCommand, stdin: bytes | None, on_stdout: Callback | None, on_stderr: Callback | None
) -> CommandResult:
    """Give it its input, and follow it."""
    try:
        if stdin is not None:
            try:
                await command.write(stdin)
                await command.close_input()
            except Conflict as error:
                if error.code not in ("input_closed", "command_ended"):  # it did not want all of it
                    raise
        return await command.wait(on_stdout=on_stdout, on_stderr=on_stderr)
    except (ApiError, Unreachable):
        raise
    except BaseException:
        with suppress(ApiError, Unreachable):
            await command.kill()
        raise


def _item(event: ServerEvent) -> Output | Gap | Exit | None:
    if event.name in ("stdout", "stderr"):
        data = base64.b64decode(event.data["data"])
        return Output("stderr" if event.name == "stderr" else "stdout", data, event.data["offset"])
    if event.name == "gap":
        return Gap(event.data["offset"])
    return Exit.of(event.data) if event.name == "exit" else None
