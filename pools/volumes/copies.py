"""Copies single files of a volume while a tenant writes to it: never outside the volume, never half a file unnoticed,
never waiting for the tenant.

A path is followed through handles that refuse links. The file at its end is inspected before it is opened, and opened
without blocking, because it may be a FIFO by then, or a file with a tenant's lease.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pools.volumes.entries import Stamp

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FICLONE = 0x40049409
_CANNOT_CLONE = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EXDEV, errno.ENOSYS, errno.ETXTBSY)
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE)
_FULL = (errno.ENOSPC, errno.EDQUOT)
CHUNK = 8 << 20
CLONED_FROM_BYTES = 1 << 20
"""Before a clone, the file is written to disk; smaller files are copied faster."""


class Busy(OSError):
    """The tenant holds a lease on the file. It can be opened once the lease is released or broken by the kernel."""


@dataclass(frozen=True, slots=True)
class Copied:
    """A copied file."""

    stamp: Stamp
    """The stamp before the copy, with the size of the copy."""
    name: str
    """The name of the copy in the copies' directory."""
    began_ns: int
    """When the file was synced before it was read; 0 if it was not: then a stamp does not reveal changes."""
    is_whole: bool
    """Whether the stamp was the same after the copy."""

    def is_of(self, stamp: Stamp) -> bool:
        """Whether the copy has the content of the file that now has this stamp."""
        return self.is_whole and self.stamp == stamp and stamp.is_settled(self.began_ns)


@dataclass(slots=True)
class Copies:
    """A directory of copies on one file system, which may use ``room`` bytes and leaves ``floor`` bytes free.

    ``clones`` says whether large files are cloned (reflinks), which uses no space.
    """

    directory: Path
    room: int
    floor: int
    clones: bool = True
    used: int = 0
    cloned: int = 0
    _count: int = 0
    _handle: int = -1
    _taken: dict[str, int] = field(default_factory=dict)

    def __enter__(self) -> Copies:
        self._handle = os.open(self.directory, _DIRECTORY)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)

    def take(self, root: int, path: str, until: float, *, writes_out: bool = True) -> Copied | None:
        """Copy the file ``path`` below the open directory ``root``; None if there is no space for it.

        With ``writes_out``, the file is synced first, so a later change gets another stamp. Raises FileNotFoundError if
        the file no longer exists, Busy, TimeoutError.
        """
        with _opened(root, path) as source:
            began_ns, cloned = time.time_ns(), self.cloned
            is_out = writes_out and _write_out(source)
            before = os.fstat(source)
            self._count += 1
            name = str(self._count)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            try:
                target = os.open(name, flags, 0o644, dir_fd=self._handle)
            except OSError as error:
                if error.errno in _FULL:
                    return None
                raise
            try:
                if not self._fill(source, target, before, name, until):
                    os.unlink(name, dir_fd=self._handle)
                    return None
                os.fchmod(target, 0o644)
                os.utime(target, ns=(before.st_mtime_ns, before.st_mtime_ns))
                size = os.fstat(target).st_size
            except OSError as error:
                self.drop(name)
                if error.errno in _FULL:
                    return None
                raise
            finally:
                os.close(target)
            stamp = Stamp.of(before)
            is_whole = stamp == Stamp.of(os.fstat(source))
            is_out = is_out or self.cloned > cloned  # a clone does that first
            return Copied(stamp._replace(size=size), name, began_ns if is_out else 0, is_whole and size == stamp.size)

    def drop(self, name: str) -> None:
        """Delete a copy and free its space."""
        self.used -= self._taken.pop(name, 0)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._handle)

    def _fill(self, source: int, target: int, status: os.stat_result, name: str, until: float) -> bool:
        if self.clones and status.st_size >= CLONED_FROM_BYTES:
            try:
                fcntl.ioctl(target, _FICLONE, source)
            except OSError as error:
                if error.errno not in _CANNOT_CLONE:
                    raise
                self.clones = self.cloned > 0  # some files cannot be cloned; if the first cannot, none can
            else:
                self.cloned += 1
                return True
        needs = min(status.st_size, status.st_blocks * 512)
        disk = os.fstatvfs(target)
        if self.used + needs > self.room or disk.f_bavail * disk.f_frsize - needs < self.floor:
            return False
        self._taken[name] = needs
        self.used += needs
        _copy_data(source, target, status.st_size, until)
        return True


def can_clone(directory: Path) -> bool:
    """Whether files on the file system of ``directory`` can be cloned within it; tested with a file."""
    try:
        with tempfile.TemporaryFile(dir=directory) as source, tempfile.TemporaryFile(dir=directory) as other:
            source.write(b"x" * 4096)
            source.flush()
            fcntl.ioctl(other.fileno(), _FICLONE, source.fileno())
    except OSError:
        return False
    return True


def stamp_of(root: int, path: str) -> Stamp | None:
    """The current stamp of a file; None if it does not exist."""
    try:
        with _reached(root, path) as handle:
            status = os.fstat(handle)
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise
    return Stamp.of(status) if stat.S_ISREG(status.st_mode) else None


def write_out(root: int, path: str) -> bool:
    """Make sure that a later change of the file gets another stamp; return whether that was possible. Raises OSError,
    Busy."""
    with _opened(root, path) as handle:
        return _write_out(handle)


_libc = ctypes.CDLL(None, use_errno=True)
_libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
_WAIT_BEFORE_WRITE_WAIT_AFTER = 7


def _write_out(descriptor: int) -> bool:
    """Sync the file.

    A process that has mapped a file can write to a dirty page without a new ctime until the page is on disk.
    """
    return bool(_libc.sync_file_range(descriptor, 0, 0, _WAIT_BEFORE_WRITE_WAIT_AFTER) == 0)


@contextmanager
def _reached(root: int, path: str) -> Iterator[int]:
    """Open whatever is at ``path`` without accessing its content."""
    *above, name = path.split("/")
    current = os.dup(root)
    try:
        for part in above:
            inner = os.open(part, _DIRECTORY, dir_fd=current)
            os.close(current)
            current = inner
        handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=current)
    finally:
        os.close(current)
    try:
        yield handle
    finally:
        os.close(handle)


@contextmanager
def _opened(root: int, path: str) -> Iterator[int]:
    """A regular file, open for reading. Raises FileNotFoundError for anything else, Busy."""
    try:
        with _reached(root, path) as handle:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise FileNotFoundError(errno.ENOENT, "not a file")
            source = os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _GONE:
            raise FileNotFoundError(errno.ENOENT, "no such file") from error
        if error.errno == errno.EWOULDBLOCK:
            raise Busy(errno.EWOULDBLOCK, "the tenant holds a lease on it") from error
        raise
    try:
        yield source
    finally:
        os.close(source)


def _copy_data(source: int, target: int, size: int, until: float) -> None:
    """Copy ``size`` bytes; holes stay holes. A file that is shorter by then stays shorter. Raises TimeoutError."""
    os.ftruncate(target, size)
    at = 0
    while at < size:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
            end = min(os.lseek(source, at, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # a hole to the end
            raise
        os.lseek(target, min(at, size), os.SEEK_SET)
        while at < end:
            if time.monotonic() > until:
                raise TimeoutError
            sent = os.sendfile(target, source, at, min(CHUNK, end - at))
            if not sent:
                return
            at += sent
