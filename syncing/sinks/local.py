"""A directory of this host (or one that is mounted here), below the root that the deployment allows.

rclone sees nothing of it but the locations of its run, as binds into its jail. Those belong to the container's uid
while it writes; all above them belongs to root, so no other uid of the host gets there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from django.conf import settings

from boilerhouse.core import stalling
from syncing import locations
from syncing.errors import DiskFull, Incomplete, SinkDenied, SinkMissing, SinkUnreachable, SyncFailed
from syncing.sinks import deadlines
from syncing.sinks.base import REMOTE, Sink, whole_s

INSIDE = "/sink"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


def local_root() -> Path | None:
    """The only directory below which local sinks may lie; None where the deployment allows none."""
    root = settings.BOILERHOUSE_LOCAL_SINK_ROOT
    return Path(root) if root else None


@dataclass(frozen=True, slots=True)
class LocalSink(Sink):
    """Files below the allowed root. Its place is the root: the path is part of every location."""

    root: Path

    type: ClassVar[str] = "local"

    @classmethod
    def from_spec(cls, sink: Mapping[str, Any], secrets: Mapping[str, Any]) -> Self:
        return cls(local_root() or Path("/nonexistent"))

    @classmethod
    def prefix(cls, sink: Mapping[str, Any]) -> str:
        """The spec's path, relative to the root."""
        root = local_root()
        path = Path(sink["path"])
        return str(path.relative_to(root)) if root and path.is_relative_to(root) and path != root else ""

    @property
    def place(self) -> tuple[str, str]:
        return "local", str(self.root)

    def far_end(self, location: str) -> str:
        """The mount that the location lies on: one that hangs is not the others below the root."""
        return f"{self.place_name} {_mount_of(self.root / location)}"

    def anchors(self, prefix: str) -> list[str]:
        literal = locations.literal(prefix)
        return ["", literal] if literal else [""]  # links and mounts below the root lead to the same directory

    def environment(self) -> dict[str, str]:
        return {f"RCLONE_CONFIG_{REMOTE.upper()}_TYPE": "local"}

    def remote(self, location: str) -> str:
        return f"{REMOTE}:{INSIDE}/{location}/"

    def binds(self, locations: Sequence[str], uid: int | None) -> list[tuple[Path, str]]:
        found = []
        with self._translated():
            for location in locations:
                path = self._path(location)
                if uid is not None:
                    self._make(path)
                    _give(path, uid)
                elif not path.is_dir():
                    raise Incomplete(f"Nothing lies at {location} any more.")
                found.append((path, f"{INSIDE}/{location}"))
        return found

    def get(self, key: str, deadline_s: int) -> bytes | None:
        with self._translated():
            try:
                return self._path(key).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def put(self, key: str, content: bytes) -> None:
        with self._translated(), self._written(key) as partial:
            partial.write_bytes(content)

    def create(self, key: str, content: bytes) -> bool:
        with self._translated():
            path = self._path(key)
            partial = self._partial(path.parent)
            try:
                partial.write_bytes(content)
                self._finish(partial)
                with contextlib.suppress(FileExistsError):
                    os.link(partial, path)
            finally:
                partial.unlink(missing_ok=True)
        return True

    def delete(self, key: str) -> None:
        with self._translated():
            path = self._path(key)
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                path.unlink()
            self._prune(path.parent)  # object stores have no empty folders, and a file may come in their place

    def tidy(self, location: str) -> None:
        with self._translated():
            self._prune(self._path(location))

    def _prune(self, path: Path) -> None:
        for directory in (path, *path.parents):
            if directory == self.root:
                break
            try:
                directory.rmdir()
            except OSError:
                break

    def copy(self, source: str, target: str) -> None:
        with self._translated(), self._written(target) as partial:
            shutil.copy2(self._path(source), partial, follow_symlinks=False)

    def has_objects(self, location: str, deadline_s: int) -> bool:
        with deadlines.within(whole_s(deadline_s)):
            return next(self.names(location), None) is not None

    def names(self, location: str) -> Iterator[tuple[str, int]]:
        with self._translated():
            top = self._path(location)
            for directory, _, files in os.walk(top, followlinks=False):
                deadlines.check()
                for name in files:
                    stalling.step()
                    path = Path(directory, name)
                    with contextlib.suppress(FileNotFoundError):
                        seen = path.lstat()
                        if stat.S_ISREG(seen.st_mode):
                            yield str(path.relative_to(top)), seen.st_size

    def folders(self, location: str) -> Iterator[str]:
        with self._translated():
            top = self._path(location)
            if top.is_dir():
                for path in sorted(top.iterdir()):
                    if path.is_dir() and not path.is_symlink():
                        yield f"{location}/{path.name}"

    def delete_all(self, location: str) -> None:
        with self._translated():
            path = self._path(location)
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)

    def _path(self, key: str) -> Path:
        if not self.root.is_dir():
            raise SinkMissing(f"The directory {self.root} does not exist.")
        if ".." in key.split("/") or key.startswith("/"):
            raise SyncFailed(f"Not a key: {key[:100]}")
        return self.root / key

    def _make(self, path: Path) -> None:
        """Make the directories down to ``path``, each its parent's owner's."""
        for _ in range(20):  # the delete of another may prune a parent in between
            if path.is_dir() or path == self.root:
                return
            with contextlib.suppress(FileNotFoundError):
                self._make(path.parent)
                path.mkdir(exist_ok=True)
                path.chmod(0o755)  # whatever the umask: a later claim's user reads what an earlier one's wrote
                owner = path.parent.stat()
                os.chown(path, owner.st_uid, owner.st_gid)
        if not path.is_dir():
            raise SyncFailed(f"The directory {path} cannot be made.")

    @contextlib.contextmanager
    def _written(self, key: str) -> Iterator[Path]:
        """A new file that takes the key's place, whole and on disk, when the block ends."""
        path = self._path(key)
        partial = self._partial(path.parent)
        try:
            yield partial
            self._finish(partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def _finish(self, partial: Path) -> None:
        """Give a new file its owner and mode, and have it on disk."""
        owner = partial.parent.stat()
        os.chown(partial, owner.st_uid, owner.st_gid)
        partial.chmod(0o644)
        with partial.open("rb") as written:
            os.fsync(written.fileno())

    def _partial(self, directory: Path) -> Path:
        for _ in range(20):  # the delete of another may prune the directory in between
            with contextlib.suppress(FileNotFoundError):
                self._make(directory)
                handle, name = tempfile.mkstemp(prefix=".boilerhouse-partial-", dir=directory)
                os.close(handle)
                return Path(name)
        raise SyncFailed(f"The directory {directory} cannot be made.")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            said = f"{self.root}: {error.strerror or type(error).__name__}"
            if error.errno in _FULL:
                raise DiskFull(f"The disk of the sink is full ({said}).") from error
            if error.errno in _DENIED:
                raise SinkDenied(f"The sink's directory cannot be used ({said}).") from error
            if error.errno in (errno.ESTALE, errno.EIO, errno.ETIMEDOUT):
                raise SinkUnreachable(f"The sink's directory does not answer ({said}).") from error
            raise SyncFailed(f"The sink's directory cannot be used ({said}).") from error


def _mount_of(path: Path) -> str:
    """Told by the kernel's list, for a mount that hangs cannot be asked."""
    points = [line.split(" ", 5)[4] for line in os.fsdecode(Path("/proc/self/mountinfo").read_bytes()).splitlines()]
    return max((point for point in points if path.is_relative_to(point)), key=len, default="/")


def _give(top: Path, uid: int) -> None:
    """Make the tree its new owner's: the uid of a tenant's container differs from claim to claim."""
    if top.stat().st_uid == uid:
        return  # given last, so all below it was given before
    for _, directories, files, at in os.fwalk(top, topdown=False, follow_symlinks=False):
        for name in (*directories, *files):
            os.chown(name, uid, uid, dir_fd=at, follow_symlinks=False)
    os.chown(top, uid, uid)
