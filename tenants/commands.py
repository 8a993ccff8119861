"""Commands that outlive their request, in the container that a tenant holds: the guest agent keeps them, no row."""

from __future__ import annotations

import base64
import hashlib
import json
import signal as signals
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self
from uuid import UUID

from django.conf import settings

from boilerhouse.core import audit
from boilerhouse.core.events import recording
from pools import errors, host_processes
from pools.guest import kept
from pools.nodes import node_of
from tenants import activity, idle
from tenants.models import Assignment

DEFAULT_WAIT_MS = 60_000
GRACE_S = 8.0
"""How much longer than its command an agent may take to report the end: its container may be frozen meanwhile."""
SHOWN_BYTES = 700
SHOWS = {"TERM": "xterm-256color"}
"""The environment of a command on a terminal, unless it names its own."""
SIGNALS = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGTERM", "SIGCONT", "SIGSTOP",
           "SIGTSTP", "SIGWINCH")  # fmt: skip

Via = Literal["agent", "engine"]


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to run: either ``command`` or ``script``."""

    command: tuple[str, ...] = ()
    script: str | None = None
    cwd: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    stdin: bytes | None = None
    timeout_ms: int | None = None
    """0: none. None: 60 s if it is waited for, else none."""
    size: tuple[int, int] | None = None
    """Columns and rows of its terminal."""

    def to_json(self) -> dict[str, Any]:
        stdin = None if self.stdin is None else base64.b64encode(self.stdin).decode()
        return {**asdict(self), "env": dict(self.env), "stdin": stdin}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Raises ValueError, TypeError."""
        stdin, size = stored["stdin"], stored["size"]
        more = {"stdin": None if stdin is None else base64.b64decode(stdin), "size": size and tuple(size)}
        return cls(**{**stored, "command": tuple(stored["command"]), **more})

    @property
    def words(self) -> tuple[str, ...]:
        return self.command if self.script is None else ("/bin/sh", "-c", self.script)

    @property
    def needs_agent(self) -> bool:
        return self.size is not None or self.cwd is not None or bool(self.env)


@dataclass(frozen=True, slots=True)
class Finished:
    command_id: str
    exit_code: int
    signal: int | None
    stdout: bytes
    stderr: bytes
    stdout_truncated: bool
    stderr_truncated: bool
    duration_ms: int
    via: Via


@dataclass(frozen=True, slots=True)
class Running:
    command_id: str
    started_ms: int


def new_id(seed: str | None = None) -> str:
    """An id for a command. With ``seed``, the same each time: a request that is repeated finds its command."""
    return uuid.uuid4().hex if seed is None else hashlib.sha256(f"command {seed}".encode()).hexdigest()[:32]


def start(container_id: UUID, command_id: str, wish: Wish) -> Running:
    """Start a command and leave it; if one with this id runs already, it is that one.

    Raises NotClaimed, Releasing, NotRunning, NeedsAgent, TooManyKept, BadCommand, CommandLost, OtherNode.
    """
    row = activity.claimed(container_id)
    _note(row, container_id, command_id, wish)
    try:
        connection = _connection(row, container_id, command_id, wish, wish.timeout_ms or 0, is_silent=True)
    except kept.NoAgent as error:
        raise errors.NeedsAgent from error
    except kept.CannotStart as error:
        raise errors.BadCommand(error.words) from error
    connection.close()
    return Running(command_id, connection.status.started_ms)


def run(container_id: UUID, command_id: str, wish: Wish) -> Finished | Running:
    """Run a command and wait until it ends; ``Running`` if that takes longer than requests wait here.

    Raises as ``start``, and TooManyCommands, ExecTimedOut.
    """
    row = activity.claimed(container_id)
    with activity.one_more(container_id):
        _note(row, container_id, command_id, wish)
        timeout_ms = DEFAULT_WAIT_MS if wish.timeout_ms is None else wish.timeout_ms
        began = time.monotonic()
        try:
            connection = _connection(row, container_id, command_id, wish, timeout_ms, is_silent=False)
        except kept.NoAgent as error:
            if wish.needs_agent:
                raise errors.NeedsAgent from error
            return _run_by_engine(row, container_id, command_id, wish, timeout_ms)
        except kept.CannotStart as error:
            took_ms = round(1000 * (time.monotonic() - began))
            words = f"{error.words}\n".encode(errors="replace")
            return Finished(command_id, error.exit_code, None, b"", words, False, False, took_ms, "agent")
        try:
            return _Waiting(command_id, connection, began, timeout_ms).result()
        finally:
            connection.close()


def _connection(
    row: Assignment, container_id: UUID, command_id: str, wish: Wish, timeout_ms: int, *, is_silent: bool
) -> kept.Kept:
    wanted = kept.Wanted(
        command=wish.words, environment={**(SHOWS if wish.size else {}), **wish.env}, directory=wish.cwd,
        wants_input=wish.size is not None, timeout_ms=timeout_ms, size=wish.size, note=_shown(wish),
    )  # fmt: skip
    commands = node_of(row).commands
    try:
        return commands.start(container_id, command_id, wanted, is_silent=is_silent, stdin=wish.stdin)
    except kept.AlreadyStarted:
        return commands.attach(container_id, command_id, is_silent=is_silent)


def _shown(wish: Wish) -> bytes:
    """What the list of commands says of it; never its input or environment."""
    room = SHOWN_BYTES
    while True:
        about: dict[str, Any] = {"cwd": wish.cwd[:room]} if wish.cwd else {}
        if wish.script is not None:
            about["script"] = wish.script[:room]
        else:
            about["command"] = [word[:room] for word in wish.command[: max(1, room // 8)]]
        note = json.dumps(about).encode()
        if len(note) <= kept.MAX_NOTE:
            return note
        room //= 2


def _note(row: Assignment, container_id: UUID, command_id: str, wish: Wish) -> None:
    idle.note_activity(container_id)
    with recording():
        digest = hashlib.sha256(json.dumps(wish.words).encode()).hexdigest()
        about = {"tenantId": row.tenant_id, "generation": row.generation, "commandSha256": digest}
        audit.record("container.command", container_id, after={**about, "commandId": command_id})


def _run_by_engine(row: Assignment, container_id: UUID, command_id: str, wish: Wish, timeout_ms: int) -> Finished:
    longest = settings.BOILERHOUSE_EXEC_TIMEOUT_MAX_MS
    try:
        done = node_of(row).commands.run_by_engine(
            container_id, wish.words, timeout_ms or longest, stdin=wish.stdin,
            limit_bytes=settings.BOILERHOUSE_EXEC_OUTPUT_MAX_BYTES,
        )  # fmt: skip
    except errors.ContainerMissing as error:
        raise errors.NotRunning from error
    by = done.exit_code - 128 if 128 < done.exit_code < 128 + signals.NSIG else None
    return Finished(
        command_id, done.exit_code, by, done.stdout, done.stderr, done.stdout_truncated, done.stderr_truncated,
        done.duration_ms, "engine",
    )  # fmt: skip


class _Waiting:
    """Collects the first bytes of each stream until the command ends."""

    def __init__(self, command_id: str, connection: kept.Kept, began: float, timeout_ms: int) -> None:
        self._id, self._connection, self._began, self._timeout_ms = command_id, connection, began, timeout_ms
        self._limit = settings.BOILERHOUSE_EXEC_OUTPUT_MAX_BYTES
        self._kept = {False: bytearray(), True: bytearray()}
        self._is_cut = {False: False, True: False}

    def result(self) -> Finished | Running:
        longest_s = settings.BOILERHOUSE_EXEC_TIMEOUT_MAX_MS / 1000
        wait_s = self._timeout_ms / 1000 + GRACE_S if self._timeout_ms else longest_s
        try:
            for message in self._connection.read(self._began + wait_s):
                if isinstance(message, kept.Output):
                    self._keep(message)
                elif isinstance(message, kept.Gap):
                    self._is_cut = {False: True, True: True}
                else:
                    return self._finished(message)
        except TimeoutError as error:
            if not self._timeout_ms:
                return Running(self._id, self._connection.status.started_ms)
            raise self._late(is_killed=host_processes.kill_session(*self._connection.session)) from error
        except kept.Malformed as error:
            raise errors.CommandLost(f"The guest agent of the container sent {error}.") from error
        raise errors.CommandLost

    def _finished(self, end: kept.End) -> Finished:
        if end.timed_out:
            raise self._late(is_killed=True)
        return Finished(
            self._id, end.exit_code, end.signal, bytes(self._kept[False]), bytes(self._kept[True]),
            self._is_cut[False], self._is_cut[True], round(1000 * (time.monotonic() - self._began)), "agent",
        )  # fmt: skip

    def _keep(self, message: kept.Output) -> None:
        so_far = self._kept[message.is_error]
        room = self._limit - len(so_far)
        so_far += message.data[: max(0, room)]
        self._is_cut[message.is_error] |= len(message.data) > room

    def _late(self, *, is_killed: bool) -> errors.ExecTimedOut:
        how = "and was killed." if is_killed else "; it could not be killed and runs until the container is released."
        return errors.ExecTimedOut(
            f"The command did not end within {self._timeout_ms} ms{' ' if is_killed else ''}{how}",
            bytes(self._kept[False]), bytes(self._kept[True]),
            stdout_truncated=self._is_cut[False], stderr_truncated=self._is_cut[True],
        )  # fmt: skip


# Later requests -----------------------------------------------------------------------------------------------


def listed(container_id: UUID) -> list[kept.Entry]:
    """The commands that run and those that ended in the last ten minutes, newest first. Raises as ``start``."""
    return node_of(activity.claimed(container_id)).commands.started(container_id)


def find(container_id: UUID, command_id: str) -> kept.Entry:
    """Raises CommandNotFound, and as ``start``."""
    for entry in listed(container_id):
        if entry.id == command_id:
            return entry
    raise errors.CommandNotFound


def open_output(container_id: UUID, command_id: str, after: int) -> kept.Kept:
    """The command's output from this offset on; the caller closes it. Raises CommandNotFound, and as ``start``."""
    row = activity.claimed(container_id)
    idle.note_activity(container_id)
    return node_of(row).commands.attach(container_id, command_id, after, is_silent=False)


def write(container_id: UUID, command_id: str, data: bytes, *, is_last: bool) -> None:
    """Pass on input. Raises InputClosed, CommandEnded, CommandNotFound, and as ``start``."""
    with _Asking(container_id, command_id) as command:
        if not command.status.is_input_open:
            raise errors.InputClosed
        ends_as_typed = is_last and command.status.is_terminal
        typed = kept.input_frames(data + b"\x04" if ends_as_typed else data, is_last=is_last and not ends_as_typed)
        try:
            has_read = not command.ask(typed).input_was_dropped
        except TimeoutError:
            return  # the command reads slowly; the agent passes it on
        if not has_read:
            raise errors.InputClosed


def send_signal(container_id: UUID, command_id: str, name: str) -> None:
    """Send a signal to the command's process group. Raises as ``write``."""
    with _Asking(container_id, command_id) as command:
        command.ask(kept.signal_frame(signals.Signals[name].value))
    _note_signal(container_id, command_id, name)


def resize(container_id: UUID, command_id: str, columns: int, rows: int) -> None:
    """Raises as ``write``."""
    with _Asking(container_id, command_id) as command:
        command.ask(kept.window_frame(columns, rows))


def kill(container_id: UUID, command_id: str) -> None:
    """Kill the command and everything it has started, if it runs. Raises CommandNotFound, and as ``start``."""
    with _Asking(container_id, command_id, may_have_ended=True) as command:
        if command.status.state != kept.State.RUNNING:
            return
        command.ask(kept.kill_frame())
    _note_signal(container_id, command_id, "SIGKILL")


def _note_signal(container_id: UUID, command_id: str, name: str) -> None:
    with recording():
        audit.record("container.command_signal", container_id, after={"commandId": command_id, "signal": name})


class _Asking:
    """A connection to a command that gets none of its output."""

    def __init__(self, container_id: UUID, command_id: str, *, may_have_ended: bool = False) -> None:
        row = activity.claimed(container_id)
        idle.note_activity(container_id)
        self._may_have_ended = may_have_ended
        self._connection = node_of(row).commands.attach(container_id, command_id, is_silent=True)

    def __enter__(self) -> kept.Kept:
        if self._connection.status.state != kept.State.RUNNING and not self._may_have_ended:
            self._connection.close()
            raise errors.CommandEnded
        return self._connection

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._connection.close()
        if isinstance(error, TimeoutError):
            raise errors.CommandLost("The guest agent of the container does not answer.") from error
        if isinstance(error, kept.Malformed):
            raise errors.CommandLost(f"The guest agent of the container sent {error}.") from error
