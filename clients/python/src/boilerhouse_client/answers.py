"""What the API answers, as types."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from urllib.parse import unquote_to_bytes

from boilerhouse_client.errors import CommandFailed

Json = dict[str, Any]
Direction = Literal["outward", "inward", "both"]
Stream = Literal["stdout", "stderr"]
FileType = Literal["file", "directory", "symlink", "fifo", "socket", "device", "unknown"]
ChangeKind = Literal["ready", "created", "written", "removed", "renamed", "changed", "overflow"]


@dataclass(frozen=True)
class Event:
    """Something that happened; of type ``reset`` when events were missed and everything must be read again."""

    id: int
    type: str
    payload: Json
    timestamp: str


class _Printed:
    """What a command has printed, also as text."""

    stdout_bytes: bytes
    stderr_bytes: bytes

    @property
    def stdout(self) -> str:
        return self.stdout_bytes.decode(errors="replace")

    @property
    def stderr(self) -> str:
        return self.stderr_bytes.decode(errors="replace")


@dataclass(frozen=True)
class Executed(_Printed):
    """What ``exec`` did. ``stdout_bytes`` and ``stderr_bytes`` are exact."""

    exit_code: int
    stdout_bytes: bytes
    stderr_bytes: bytes
    truncated: bool
    duration_ms: int
    stdout_truncated: bool = False
    stderr_truncated: bool = False


# Commands -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CommandResult(_Printed):
    """What a command did. ``stdout_bytes`` and ``stderr_bytes`` are exact; of long output they are the beginning."""

    command_id: str
    exit_code: int
    signal: str | None
    """The signal that ended it, such as ``SIGKILL``."""
    stdout_bytes: bytes
    stderr_bytes: bytes
    stdout_truncated: bool
    stderr_truncated: bool
    duration_ms: int
    via: Literal["agent", "engine"]

    @property
    def truncated(self) -> bool:
        return self.stdout_truncated or self.stderr_truncated

    def check(self) -> CommandResult:
        """This result, if the exit code is 0. Raises CommandFailed."""
        if self.exit_code != 0:
            raise CommandFailed(self)
        return self


@dataclass(frozen=True)
class CommandStatus:
    """A command that runs, or has ended in the last ten minutes."""

    command_id: str
    state: Literal["running", "exited", "lost"]
    """``lost``: the process that kept it was killed. Whether the command still runs is unknown."""
    command: list[str] | None
    script: str | None
    cwd: str | None
    tty: bool
    started_at: datetime
    ended_at: datetime | None
    exit_code: int | None
    signal: str | None
    timed_out: bool

    @classmethod
    def of(cls, answer: Json) -> CommandStatus:
        ended = answer["endedAt"]
        return cls(
            answer["commandId"], answer["state"], answer["command"], answer["script"], answer["cwd"], answer["tty"],
            time_of(answer["startedAt"]), time_of(ended) if ended else None, answer["exitCode"], answer["signal"],
            answer["timedOut"],
        )  # fmt: skip


@dataclass(frozen=True)
class Output:
    """Bytes that a command wrote, as they came. ``offset`` counts the bytes of both streams up to their end."""

    stream: Stream
    data: bytes
    offset: int


@dataclass(frozen=True)
class Gap:
    """The output before ``offset`` is no longer kept."""

    offset: int


@dataclass(frozen=True)
class Exit:
    """The end of a command."""

    exit_code: int
    signal: str | None
    timed_out: bool

    @classmethod
    def of(cls, answer: Json) -> Exit:
        return cls(answer["exitCode"], answer["signal"], answer["timedOut"])


# Files --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FileInfo:
    """What a path names; a link itself. Bytes of names that are no UTF-8 are surrogates, as in ``os.fsdecode``."""

    path: str
    name: str
    type: FileType
    size: int
    """Bytes."""
    mode: int
    """Permission bits."""
    mtime: datetime
    target: str | None
    """Where a link leads, as the link says it."""
    etag: str

    @classmethod
    def of(cls, answer: Json) -> FileInfo:
        is_percent, target = answer["pathEncoding"] == "percent", answer["target"]
        return cls(
            path_of(answer["path"], is_percent), path_of(answer["name"], is_percent), answer["type"], answer["size"],
            int(answer["mode"], 8), time_of(answer["mtime"]),
            None if target is None else path_of(target, is_percent), answer["etag"],
        )  # fmt: skip


@dataclass(frozen=True)
class Change:
    """A change below a watched directory, to which ``path`` is relative.

    ``ready`` comes first. ``renamed`` names the old name of what was moved; the new one is ``created``. ``overflow``:
    changes were missed, so read again what matters.
    """

    kind: ChangeKind
    path: str = ""
    is_directory: bool = False


@dataclass(frozen=True)
class Link:
    """A URL that needs no key."""

    url: str
    method: Literal["GET", "PUT"]
    expires_at: datetime


@dataclass(frozen=True)
class PortLink:
    """A URL that leads a browser to a port through the gateway without a key."""

    url: str
    expires_at: datetime


def path_of(text: str, is_percent: bool) -> str:
    return unquote_to_bytes(text).decode("utf-8", "surrogateescape") if is_percent else text


def time_of(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
