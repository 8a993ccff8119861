"""A directory of this host (or one mounted here), below the root that the deployment allows.

rclone sees only the locations of its run, as binds in its sandbox. These belong to the container's uid while it writes;
everything above belongs to root, so no other uid of the host gets there. None of our processes touches it directly,
because a hung mount blocks them (``local_helpers``).
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from django.conf import settings

from boilerhouse.process import stalls
from syncing import locations
from syncing.errors import DiskFull, Incomplete, Oversized, SinkDenied, SinkMissing, SinkUnreachable, SyncFailed
from syncing.sinks import deadlines, local_helpers, sizes
from syncing.sinks.base import COPY_DEADLINE_S, LISTING_DEADLINE_S, REMOTE, RUN_DEADLINE_S, FormField, Sink, whole_s

if TYPE_CHECKING:
    from syncing.sinks.inputs import InputClass

INSIDE = "/sink"
LISTED_S = 5.0
"""How long the kernel's list of mounts is cached."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


def local_root() -> Path | None:
    """The only directory below which local sinks are allowed; None if there is none."""
    root = settings.BOILERHOUSE_LOCAL_SINK_ROOT
    return Path(root) if root else None


@dataclass(frozen=True, slots=True)
class LocalSink(Sink):
    """Files below the allowed root. The place is the root: the path is part of every location."""

    root: Path

    type: ClassVar[str] = "local"
    label: ClassVar[str] = "a directory on the node"
    form: ClassVar[tuple[FormField, ...]] = (FormField("path", "Directory", "Below BOILERHOUSE_LOCAL_SINK_ROOT"),)

    @classmethod
    def from_spec(cls, sink: Mapping[str, Any], secrets: Mapping[str, Any]) -> Self:
        return cls(local_root() or Path("/nonexistent"))

    @classmethod
    def serializer(cls) -> InputClass:
        from syncing.sinks.local_input import LocalSinkInput

        return LocalSinkInput

    @classmethod
    def prefix_of(cls, sink: Mapping[str, Any]) -> str:
        """The spec's path, relative to the root."""
        root = local_root()
        path = Path(sink["path"])
        return str(path.relative_to(root)) if root and path.is_relative_to(root) and path != root else ""

    @property
    def place(self) -> tuple[str, str]:
        return "local", str(self.root)

    def far_end(self, location: str) -> str:
        """The mount of the location: a hung one does not affect other mounts below the root."""
        return f"{self.place_name} {_mount_of(self.root / location)}"

    def anchors(self, prefix: str) -> list[str]:
        literal = locations.literal(prefix)
        return ["", literal] if literal else [""]  # links and mounts below the root lead to the same directory

    def environment(self) -> dict[str, str]:
        return {f"RCLONE_CONFIG_{REMOTE.upper()}_TYPE": "local"}

    def remote(self, location: str) -> str:
        return f"{REMOTE}:{INSIDE}/{location}/"

    def binds(self, locations: Sequence[str], uid: int | None) -> list[tuple[Path, str]]:
        paths = []
        for location in locations:
            if not self._ask("show", location, uid, silent_s=RUN_DEADLINE_S, whole_s=LISTING_DEADLINE_S):
                raise Incomplete(f"Nothing lies at {location} any more.")
            paths.append((self.root / location, f"{INSIDE}/{location}"))
        return paths

    def get(self, key: str, deadline_s: int) -> bytes | None:
        content: bytes | None = self._ask("get", key, sizes.most(), whole_s=whole_s(deadline_s))
        return content

    def put(self, key: str, content: bytes) -> None:
        self._ask("put", key, body=content, whole_s=whole_s(RUN_DEADLINE_S, len(content)))

    def create(self, key: str, content: bytes) -> bool:
        self._ask("create", key, body=content, whole_s=whole_s(RUN_DEADLINE_S, len(content)))
        return True

    def delete(self, key: str) -> None:
        self._ask("delete", key, whole_s=whole_s(RUN_DEADLINE_S))

    def tidy(self, location: str) -> None:
        self._ask("tidy", location, whole_s=whole_s(RUN_DEADLINE_S))

    def copy(self, source: str, target: str) -> None:
        _check(source)
        self._ask("copy", source, target, whole_s=whole_s(COPY_DEADLINE_S))

    def has_objects(self, location: str, deadline_s: int) -> bool:
        return bool(self._ask("has_objects", location, whole_s=whole_s(deadline_s)))

    def names(self, location: str) -> Iterator[tuple[str, int]]:
        for batch in self._listed("names", location):
            for name, size in batch:
                stalls.step()
                yield name, size

    def folders(self, location: str) -> Iterator[str]:
        for batch in self._listed("folders", location):
            for name in batch:
                yield f"{location}/{name}"

    def delete_all(self, location: str) -> None:
        self._ask("delete_all", location, silent_s=RUN_DEADLINE_S, whole_s=LISTING_DEADLINE_S)

    def _ask(self, does: str, key: str, *more: Any, body: bytes = b"", whole_s: float, silent_s: float = 0) -> Any:
        """The answer and its body, from a process that a hung mount may block."""
        with deadlines.within(whole_s):
            *_, (last, content) = self._lines(does, key, *more, body=body, whole_s=whole_s, silent_s=silent_s)
        return content if "bytes" in last else last["found"]

    def _listed(self, does: str, location: str) -> Iterator[list[Any]]:
        for line, _ in self._lines(does, location, whole_s=LISTING_DEADLINE_S, silent_s=RUN_DEADLINE_S):
            deadlines.check()
            if "more" in line:
                yield line["more"]

    def _lines(
        self, does: str, key: str, *more: Any, body: bytes = b"", whole_s: float, silent_s: float
    ) -> Iterator[tuple[dict[str, Any], bytes]]:
        """The answer of a query, line by line. Raises SyncFailed."""
        _check(key)
        question = {"root": str(self.root), "does": does, "with": [key, *more]}
        hands = local_helpers.of(_mount_of(self.root / key))
        within_s = float(deadlines.left_of(whole_s))
        try:
            for line, content in hands.ask(question, body, silent_s or within_s, time.monotonic() + within_s):
                if "wrong" in line:
                    raise self._failure(line)
                yield line, content
        except local_helpers.Lost:
            raise SinkUnreachable(f"What asks the directory {self.root} has ended without an answer.") from None

    def _failure(self, line: Mapping[str, Any]) -> SyncFailed:
        if line["wrong"] == "missing":
            return SinkMissing(f"The directory {self.root} does not exist.")
        if line["wrong"] == "long":
            return Oversized(f"An object has {line['size']} bytes; the limit is {sizes.most()}.")
        if line["wrong"] == "unmakeable":
            return SyncFailed(f"The directory {line['words']} cannot be made.")
        message = f"{self.root}: {line['words']}"
        if line["errno"] in _FULL:
            return DiskFull(f"The disk of the sink is full ({message}).")
        if line["errno"] in _DENIED:
            return SinkDenied(f"The sink's directory cannot be used ({message}).")
        if line["errno"] in (errno.ESTALE, errno.EIO, errno.ETIMEDOUT):
            return SinkUnreachable(f"The sink's directory does not answer ({message}).")
        return SyncFailed(f"The sink's directory cannot be used ({message}).")


def _check(key: str) -> None:
    if ".." in key.split("/") or key.startswith("/"):
        raise SyncFailed(f"Not a key: {key[:100]}")


def _mount_of(path: Path) -> str:
    """From the kernel's list, because a hung mount cannot be queried."""
    return max((point for point in _points(int(time.monotonic() / LISTED_S)) if path.is_relative_to(point)), key=len)


@lru_cache(maxsize=1)
def _points(_now: int) -> list[str]:
    """All mount points; the list is long if many containers run."""
    listed = os.fsdecode(Path("/proc/self/mountinfo").read_bytes())
    return ["/", *(line.split(" ", 5)[4] for line in listed.splitlines())]
