"""Commands that outlive the connection that started them (docs/guest-agent.md): the agent keeps each of them, with the
last 1 MiB of its output, until ten minutes after its end. Any process of this node starts them, and comes back by id.
"""

from __future__ import annotations

import asyncio
import errno
import json
import struct
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from uuid import UUID

from pools import errors
from pools.guest import frames
from pools.guest.commands import refused
from pools.guest.connections import Connection, NoAgent, connect
from pools.guest.frames import Malformed

PROTOCOL = 3
ATTACH, LIST, KILL, QUERY = b"A", b"L", b"D", b"Q"
STATUS, GAP, ENTRY, LIST_END = b"K", b"G", b"C", b"."
AT_COMMAND = b"c"
MAX_NOTE = 1024
MAX_LISTED = 256
ANSWER_S = 5.0
"""How long an agent may take to answer: its container may be frozen for a save."""
LONGEST_REST_S = 0.25
"""How long an event loop's reader rests at most: the time of many frames has that of a slow client in it."""
MAX_SKIPPED = 64
"""Frames that may come before an answer."""
LAST_MS = 253_402_300_799_000
"""The end of the year 9999."""
_STATUS = struct.Struct(">cBBIIIQQQQ")
_END = struct.Struct(">IBBI")
_TERMINAL, _INPUT_OPEN, _INPUT_DROPPED, _LATE = 1, 2, 4, 8


class State(StrEnum):
    RUNNING = "running"
    EXITED = "exited"
    LOST = "lost"
    """The process that kept it has died: how it ended is unknown."""


_STATES = {b"r": State.RUNNING, b"x": State.EXITED, b"l": State.LOST}


@dataclass(frozen=True, slots=True)
class Status:
    state: State
    exit_code: int | None
    signal: int | None
    timed_out: bool
    is_terminal: bool
    is_input_open: bool
    input_was_dropped: bool
    """Whether the command did not read what this connection has sent, because its input was closed."""
    pid: int
    """In the container's namespace: a number to show, nothing to act on."""
    started_ms: int
    """Since 1970, by the container's word."""
    ended_ms: int | None
    first: int
    """Offset of the first byte of output that is kept, in the bytes of both streams."""
    end: int


@dataclass(frozen=True, slots=True)
class Entry:
    id: str
    status: Status
    note: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: str | None = None
    wants_input: bool = False
    timeout_ms: int = 0
    """0: none"""
    size: tuple[int, int] | None = None
    """Columns and rows of its terminal."""
    note: bytes = b""
    """JSON that the list shows, 1 KiB at most."""


@dataclass(frozen=True, slots=True)
class Output:
    offset: int
    """Of the byte after it."""
    is_error: bool
    data: bytes


@dataclass(frozen=True, slots=True)
class Gap:
    """The output before this offset is no longer kept."""

    offset: int


@dataclass(frozen=True, slots=True)
class End:
    exit_code: int
    signal: int | None
    timed_out: bool


Message = Output | Gap | End


class AlreadyStarted(Exception):
    """There is a command with this id."""


class CannotStart(Exception):
    """As a shell would report it; nothing has run."""

    def __init__(self, exit_code: int, words: str) -> None:
        self.exit_code, self.words = exit_code, words
        super().__init__(words)


def start(container_id: UUID, command_id: str, wanted: Wanted, *, is_silent: bool, stdin: bytes | None = None) -> Kept:
    """Start a command; ``is_silent``: this connection gets none of its output.

    With ``stdin``, its input begins with that, at most 1 MiB; it ends there unless ``is_silent``. The command does not
    start until the agent has all of it, so one that runs needs no input again. Raises NoAgent if nothing has run and
    the engine may be asked; AlreadyStarted, CannotStart, TooManyKept, CommandLost, BadCommand.
    """
    items = frames.frame(b"k", bytes.fromhex(command_id) + bytes([is_silent])) + frames.frame(b"n", wanted.note)
    wants_input = wanted.wants_input or stdin is not None
    first_input = b"" if stdin is None else input_frames(stdin, is_last=not is_silent)
    if first_input:
        items += frames.frame(b"u", struct.pack(">I", len(first_input)))
    try:
        request = frames.request(
            wanted.command, wanted.environment, wants_input=wants_input, timeout_ms=wanted.timeout_ms,
            size=wanted.size, directory=wanted.directory, more=items,
        )  # fmt: skip
    except ValueError as error:
        raise errors.BadCommand(str(error)) from error
    kept = Kept(connect(container_id, PROTOCOL), 0, is_silent=is_silent)
    with kept.closed_on_error():
        with suppress(errors.CommandLost):  # a refusal may come before it has read all, and can be read
            kept.send(request + first_input)
        kept.greet(wanted.command)
        return kept


def attach(container_id: UUID, command_id: str, after: int = 0, *, is_silent: bool) -> Kept:
    """Come back to a command: its output from the offset ``after`` on. Raises NoAgent, CommandNotFound, TooManyKept,
    CommandLost."""
    try:
        return _attach(container_id, command_id, after, is_silent=is_silent)
    except errors.CommandLost as error:
        if isinstance(error.__cause__, (frames.Malformed, TimeoutError)):
            raise
        # Its keeper left at that moment, so another session answers now.
        try:
            return _attach(container_id, command_id, after, is_silent=is_silent)
        except NoAgent:
            raise error from None


def _attach(container_id: UUID, command_id: str, after: int, *, is_silent: bool) -> Kept:
    kept = Kept(connect(container_id, PROTOCOL), after, is_silent=is_silent)
    with kept.closed_on_error():
        kept.send(frames.frame(ATTACH, bytes.fromhex(command_id) + bytes([is_silent]) + struct.pack(">Q", after)))
        kept.greet()
        return kept


def entries(container_id: UUID) -> list[Entry]:
    """Commands that run, and those that ended in the last ten minutes, newest first. Raises NoAgent, CommandLost."""
    kept = Kept(connect(container_id, PROTOCOL), 0, is_silent=True)
    found = list[Entry]()
    with kept.closed_on_error():
        kept.send(frames.frame(LIST))
        until = time.monotonic() + ANSWER_S
        while (arrived := kept.next(until))[0] != LIST_END:
            if arrived[0] != ENTRY or len(found) >= MAX_LISTED:
                raise errors.CommandLost("The guest agent of the container sent a list that is none.")
            found.append(_entry(arrived[1]))
    kept.close()
    return sorted(found, key=lambda entry: entry.status.started_ms, reverse=True)


class Kept:
    """One connection to a command that is kept. Closing it leaves the command as it is."""

    status: Status

    def __init__(self, connection: Connection, after: int, *, is_silent: bool) -> None:
        self._connection, self._socket = connection, connection.socket
        self._early = deque(connection.early)
        self.position, self.is_silent = after, is_silent

    @property
    def session(self) -> tuple[int, int]:
        """The pids that the kernel stamped on the connection: of who served it first, and of process 1."""
        return self._connection.session, self._connection.process_1

    def closed_on_error(self) -> _ClosedOnError:
        return _ClosedOnError(self)

    def close(self) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Raises CommandLost."""
        try:
            self._socket.settimeout(ANSWER_S)
            self._socket.sendall(data)
        except OSError as error:
            raise errors.CommandLost from error

    def next(self, until: float) -> tuple[bytes, bytes]:
        """The next frame. Raises CommandLost at the end of the connection, TimeoutError at ``until``, Malformed."""
        while not self._early:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            try:
                data = self._socket.recv(4 * frames.MAX_CHUNK)
            except TimeoutError:
                raise
            except OSError as error:
                raise errors.CommandLost from error
            if not data:
                raise errors.CommandLost
            self._early.extend(self._connection.reader.feed(data))
        return self._early.popleft()

    def greet(self, command: tuple[str, ...] = ("command",)) -> None:
        """Read the command's state, which comes first."""
        kind, payload = self._answer(command)
        if kind != STATUS:
            raise frames.Malformed(f"a frame of the unknown kind {kind!r}")
        self.status = _status(payload)
        self.position = min(self.position, self.status.end)

    def _answer(self, command: tuple[str, ...]) -> tuple[bytes, bytes]:
        kind, payload = self.next(time.monotonic() + ANSWER_S)
        if kind == frames.REFUSED:
            _raise_refusal(command, *frames.refusal_of(payload))
        return kind, payload

    def ask(self, *requests: bytes) -> Status:
        """Have these frames obeyed in order; the state afterwards. Raises CommandLost, TimeoutError if that takes long;
        input is then still passed on, and so is a signal."""
        self.send(b"".join(requests) + frames.frame(QUERY))
        until = time.monotonic() + ANSWER_S
        for _ in range(MAX_SKIPPED):
            kind, payload = self.next(until)
            if kind == STATUS:
                self.status = _status(payload)
                return self.status
        raise frames.Malformed("no answer among its frames")

    def read(self, until: float) -> Iterator[Message]:
        """Its output, and its end last. Raises CommandLost, TimeoutError at ``until`` (monotonic)."""
        while True:
            message = self._message(*self.next(until))
            if message is not None:
                yield message
            if isinstance(message, End):
                return

    def fileno(self) -> int:
        """Its descriptor, to be waited for beside others; then ``arrived``."""
        return self._socket.fileno()

    def arrived(self) -> list[Message]:
        """What has come, without waiting. Raises CommandLost, Malformed."""
        self._socket.setblocking(False)
        try:
            data = self._socket.recv(frames.MAX_CHUNK)
        except BlockingIOError:
            data = None
        except OSError as error:
            raise errors.CommandLost from error
        if data == b"" and not self._early:
            raise errors.CommandLost
        self._early.extend(self._connection.reader.feed(data or b""))
        messages = [self._message(*one) for one in self._early]
        self._early.clear()
        return [message for message in messages if message is not None]

    async def stream(self, idle_s: float) -> AsyncIterator[Message | None]:
        """The same for an event loop; None after ``idle_s`` without any. Without an End if the connection ends."""
        loop, coming = asyncio.get_running_loop(), None
        self._socket.setblocking(False)
        try:
            while True:
                began = time.monotonic()
                for count, one in enumerate(self._early, 1):
                    if (message := self._message(*one)) is not None:
                        yield message
                    if isinstance(message, End):
                        return
                    if count % frames.MANY == 0:  # it may keep the loop busy with tiny ones
                        await asyncio.sleep(min(frames.REST * (time.monotonic() - began), LONGEST_REST_S))
                        began = time.monotonic()
                self._early.clear()
                coming = coming or asyncio.ensure_future(loop.sock_recv(self._socket, frames.MAX_CHUNK))
                await asyncio.wait((coming,), timeout=idle_s)
                if not coming.done():
                    yield None
                    continue
                data, coming = coming.result(), None
                if not data:
                    return
                self._early.extend(self._connection.reader.split(data))
        except (OSError, frames.Malformed):
            return
        finally:
            if coming is not None:
                coming.cancel()

    async def tell(self, *requests: bytes) -> None:
        """Send frames from an event loop, as fast as the command takes them. Raises OSError."""
        self._socket.setblocking(False)
        await asyncio.get_running_loop().sock_sendall(self._socket, b"".join(requests))

    def _message(self, kind: bytes, payload: bytes) -> Message | None:
        if kind in (frames.STDOUT, frames.STDERR):
            self.position += len(payload)
            return Output(self.position, kind == frames.STDERR, payload)
        if kind == GAP and len(payload) == 8:
            self.position = int.from_bytes(payload)
            return Gap(self.position)
        if kind == frames.EXIT:
            return _end(payload)
        if kind == STATUS:
            self.status = _status(payload)
            return None
        raise frames.Malformed(f"a frame of the unknown kind {kind!r}")


class _ClosedOnError:
    """Closes the connection if the block raises, and turns nonsense of the agent into CommandLost."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        self._kept.close()
        if isinstance(error, frames.Malformed):
            raise errors.CommandLost(f"The guest agent of the container sent {error}.") from error
        if isinstance(error, TimeoutError):
            raise errors.CommandLost("The guest agent of the container does not answer.") from error


def signal_frame(number: int) -> bytes:
    return frames.frame(frames.SIGNAL, bytes([number]))


def window_frame(columns: int, rows: int) -> bytes:
    return frames.frame(frames.WINDOW, frames.window(columns, rows))


def kill_frame() -> bytes:
    return frames.frame(KILL)


def input_frames(data: bytes, *, is_last: bool) -> bytes:
    """Input; up to 1 MiB of it is passed on whole or, if the connection breaks before all has come, not at all."""
    pieces = (data[start : start + frames.MAX_PAYLOAD] for start in range(0, len(data), frames.MAX_PAYLOAD))
    whole = b"".join(frames.frame(frames.INPUT, piece) for piece in pieces)
    return whole + (frames.frame(frames.INPUT_END) if is_last else b"")


def _raise_refusal(command: tuple[str, ...], stage: bytes, number: int) -> None:
    if stage == AT_COMMAND:
        raise AlreadyStarted if number == errno.EEXIST else errors.CommandNotFound
    if stage == frames.AT_LIMIT:
        raise errors.TooManyKept
    if stage == frames.AT_REQUEST:
        raise errors.BadCommand("The guest agent of the container refused the command.")
    done = refused(command, stage, number, 0)  # raises NoAgent where nothing can be forked
    raise CannotStart(done.exit_code, done.refusal or "")


def _status(payload: bytes) -> Status:
    """Raises Malformed."""
    try:
        letter, flags, by, code, pid, _, started, ended, first, end = _STATUS.unpack(payload)
        state = _STATES[letter]
    except (struct.error, KeyError) as error:
        raise frames.Malformed("a state that is none") from error
    has_exited = state == State.EXITED
    if code > 255 or by > 64 or max(started, ended) > LAST_MS or end >= 1 << 53 or first > end:
        raise frames.Malformed("a state that cannot be")
    return Status(
        state=state, exit_code=code if has_exited else None, signal=by or None, timed_out=bool(flags & _LATE),
        is_terminal=bool(flags & _TERMINAL), is_input_open=bool(flags & _INPUT_OPEN),
        input_was_dropped=bool(flags & _INPUT_DROPPED), pid=pid, started_ms=started, ended_ms=ended or None,
        first=first, end=end,
    )  # fmt: skip


def _end(payload: bytes) -> End:
    code, timed_out = frames.end_of(payload)
    return End(code, _END.unpack(payload)[1] or None, timed_out)


def _entry(payload: bytes) -> Entry:
    head = payload[: _STATUS.size]
    name, note = payload[_STATUS.size : _STATUS.size + 16], payload[_STATUS.size + 16 :]
    if len(name) != 16 or len(note) > MAX_NOTE:
        raise frames.Malformed("an entry of another length")
    shown: Any = None
    with suppress(ValueError, RecursionError):
        shown = json.loads(note)
    return Entry(name.hex(), _status(head), shown if isinstance(shown, dict) else {})


__all__ = [
    "AlreadyStarted", "CannotStart", "End", "Entry", "Gap", "Kept", "Malformed", "NoAgent", "Output", "State", "Status",
    "Wanted", "attach", "entries", "input_frames", "kill_frame", "signal_frame", "start", "window_frame",
]  # fmt: skip
