"""Accesses a directory: a separate program without Django, started by ``local_helpers``.

A hung mount blocks every thread and signal handler that accesses it. So the access is made by a process that holds
nothing of ours and can be abandoned. It reads one query per line, with a body if it has one, and writes lines with
results so far, and a last one, with a body, too, or a system error.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SAY_EVERY_S = 0.25
"""The interval of progress lines during long work."""
SAY_MOST = 1000
PARTIAL = ".boilerhouse-partial-"


class Missing(Exception):
    """The root does not exist."""


class TooLong(Exception):
    """An object is larger than the limit; its size in bytes."""


class Unmakeable(Exception):
    """A directory cannot be created, or the one to hand over does not exist."""


class Directory:
    """Objects below ``root``; keys are relative to it. Queries raise OSError and the errors above."""

    def __init__(self, root: str, say: Callable[[list[Any]], None]) -> None:
        self.root, self._say = Path(root), say
        self._reported_at = time.monotonic()

    def get(self, key: str, most: int) -> bytes | None:
        try:
            with self._path(key).open("rb") as file:
                content = file.read(most + 1)
                if len(content) > most:
                    raise TooLong(os.fstat(file.fileno()).st_size)
                return content
        except (FileNotFoundError, NotADirectoryError):
            return None

    def put(self, key: str, content: bytes) -> None:
        with self._written(key) as partial:
            partial.write_bytes(content)

    def create(self, key: str, content: bytes) -> None:
        path = self._path(key)
        partial = self._partial(path.parent)
        try:
            partial.write_bytes(content)
            self._finish(partial)
            with contextlib.suppress(FileExistsError):
                os.link(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    def delete(self, key: str) -> None:
        path = self._path(key)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()
        self._prune(path.parent)  # object stores have no empty folders, and a file may come in their place

    def tidy(self, location: str) -> None:
        self._prune(self._path(location))

    def copy(self, source: str, target: str) -> None:
        with self._written(target) as partial:
            shutil.copy2(self._path(source), partial, follow_symlinks=False)

    def has_objects(self, location: str) -> bool:
        return next(self._files(location), None) is not None

    def names(self, location: str) -> None:
        batch: list[tuple[str, int]] = []
        for file in self._files(location):
            batch.append(file)
            if len(batch) >= SAY_MOST or self._is_time_to_say():
                self._say(batch)
                batch = []
        self._say(batch)

    def folders(self, location: str) -> None:
        top = self._path(location)
        if top.is_dir():
            names = sorted(path.name for path in top.iterdir() if path.is_dir() and not path.is_symlink())
            for begin in range(0, len(names), SAY_MOST):
                self._say(names[begin : begin + SAY_MOST])

    def delete_all(self, location: str) -> None:
        path = self._path(location)
        if not path.is_dir() or path.is_symlink():
            return
        for _, directories, files, at in os.fwalk(path, topdown=False, follow_symlinks=False):
            for name in (*files, *directories):
                is_directory = stat.S_ISDIR(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode)
                (os.rmdir if is_directory else os.unlink)(name, dir_fd=at)
                self._say_now_and_then()
        path.rmdir()

    def show(self, location: str, uid: int | None) -> bool:
        """With a uid, give the location to that user, creating it if missing; without, return whether it exists."""
        path = self._path(location)
        if uid is None:
            return path.is_dir()
        self._make(path)
        self._give(path, uid)
        return True

    def _files(self, location: str) -> Iterator[tuple[str, int]]:
        top = self._path(location)
        for directory, _, files in os.walk(top, followlinks=False):
            for name in files:
                path = Path(directory, name)
                with contextlib.suppress(FileNotFoundError):
                    status = path.lstat()
                    if stat.S_ISREG(status.st_mode):
                        yield str(path.relative_to(top)), status.st_size
            self._say_now_and_then()

    def _is_time_to_say(self) -> bool:
        if time.monotonic() - self._reported_at < SAY_EVERY_S:
            return False
        self._reported_at = time.monotonic()
        return True

    def _say_now_and_then(self) -> None:
        if self._is_time_to_say():
            self._say([])

    def _path(self, key: str) -> Path:
        if not self.root.is_dir():
            raise Missing
        return self.root / key

    def _prune(self, path: Path) -> None:
        for directory in (path, *path.parents):
            if directory == self.root:
                break
            try:
                directory.rmdir()
            except OSError:
                break

    def _make(self, path: Path) -> None:
        """Create the directories down to ``path``, each owned by its parent's owner."""
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
            raise Unmakeable(str(path))

    @contextlib.contextmanager
    def _written(self, key: str) -> Iterator[Path]:
        """A new file that replaces the key's file, complete and synced, when the block ends."""
        path = self._path(key)
        partial = self._partial(path.parent)
        try:
            yield partial
            self._finish(partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def _finish(self, partial: Path) -> None:
        """Set a new file's owner and mode, and sync it."""
        owner = partial.parent.stat()
        os.chown(partial, owner.st_uid, owner.st_gid)
        partial.chmod(0o644)
        with partial.open("rb") as written:
            os.fsync(written.fileno())

    def _partial(self, directory: Path) -> Path:
        for _ in range(20):  # the delete of another may prune the directory in between
            with contextlib.suppress(FileNotFoundError):
                self._make(directory)
                handle, name = tempfile.mkstemp(prefix=PARTIAL, dir=directory)
                os.close(handle)
                return Path(name)
        raise Unmakeable(str(directory))

    def _give(self, top: Path, uid: int) -> None:
        """Give the tree to its new owner: the uid of a tenant's container differs between claims."""
        if top.stat().st_uid == uid:
            return  # given last, so all below it was given before
        for _, directories, files, at in os.fwalk(top, topdown=False, follow_symlinks=False):
            for name in (*directories, *files):
                os.chown(name, uid, uid, dir_fd=at, follow_symlinks=False)
                self._say_now_and_then()
        os.chown(top, uid, uid)


def answer(question: dict[str, Any], body: bytes, say: Callable[[list[Any]], None]) -> tuple[dict[str, Any], bytes]:
    """The last line of an answer, and the body after it."""
    try:
        more = [body] if question["does"] in ("put", "create") else []
        reply = getattr(Directory(question["root"], say), question["does"])(*question["with"], *more)
    except Missing:
        return {"wrong": "missing"}, b""
    except TooLong as error:
        return {"wrong": "long", "size": error.args[0]}, b""
    except Unmakeable as error:
        return {"wrong": "unmakeable", "words": str(error)}, b""
    except OSError as error:
        return {"wrong": "system", "errno": error.errno, "words": error.strerror or type(error).__name__}, b""
    if isinstance(reply, bytes):
        return {"bytes": len(reply)}, reply
    return {"found": reply}, b""


def main() -> None:
    """Answer queries until the input ends."""
    requests, output = sys.stdin.buffer, sys.stdout.buffer

    def say(batch: list[Any]) -> None:
        output.write(json.dumps({"more": batch}).encode() + b"\n")
        output.flush()

    for line in requests:
        question = json.loads(line)
        last, content = answer(question, requests.read(question["bytes"]), say)
        output.write(json.dumps(last).encode() + b"\n" + content)
        output.flush()


if __name__ == "__main__":
    main()
