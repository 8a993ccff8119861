"""Requests for files and what the guest agent answers to them, as bytes (docs/guest-agent.md)."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from boilerhouse.core.errors import BoilerhouseError
from pools import file_errors
from pools.guest.frames import MAX_ERRNO, Malformed, frame

FILES = b"F"
READY, META, DATA, ENTRIES, EVENT, DONE, FAILED = b"G", b"M", b"D", b"N", b"V", b"Z", b"Y"

GET, PUT, STAT, LIST, MAKE, MOVE, REMOVE, WATCH, ARCHIVE, UNPACK = (
    b"g", b"p", b"s", b"l", b"d", b"n", b"r", b"w", b"a", b"u",
)  # fmt: skip
NO_REPLACE, MUST_EXIST, WITH_PARENTS, RECURSIVE, KEEPS_MODE = 1, 2, 4, 8, 16

MAX_PATH = 4095
MAX_MATCHES = 16
PIECE = 256 << 10
"""Bytes in one frame of an upload."""
_META = struct.Struct(">cIQqqQQ")
_ENTRY = struct.Struct(">I")
_FAILED = struct.Struct(">IcQ")
_IDENTITY = struct.Struct(">QQQQ")
_64_BITS = (1 << 64) - 1
_TYPES = {
    b"f": "file", b"d": "directory", b"l": "symlink", b"p": "fifo", b"s": "socket", b"c": "device", b"b": "device",
}  # fmt: skip
_EVENTS = {
    b"c": "created", b"w": "written", b"d": "removed", b"m": "renamed", b"a": "changed", b"o": "overflow",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What a name in a container stands for. ``target`` is where a link leads, as the link says it."""

    type: str
    size: int
    mode: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    target: bytes = b""

    @property
    def etag(self) -> str:
        """Differs after each change that the kernel's clock can tell apart (4 ms at most)."""
        mtime, ctime = self.mtime_ns & _64_BITS, self.ctime_ns & _64_BITS  # negative before 1970
        return f'"{self.inode:x}-{self.size:x}-{mtime:x}-{ctime:x}"'


@dataclass(frozen=True, slots=True)
class Entry:
    path: bytes
    """Relative to the directory that was listed."""
    info: FileInfo


@dataclass(frozen=True, slots=True)
class Change:
    kind: str
    path: bytes
    is_directory: bool


def identity_of(etag: str) -> bytes | None:
    """What the agent compares for this ETag; None if it is no ETag of a file."""
    parts = etag.strip().removeprefix('"').removesuffix('"').split("-")
    try:
        inode, size, mtime, ctime = (int(part, 16) for part in parts)
        return _IDENTITY.pack(size, mtime, ctime, inode)
    except (ValueError, struct.error):
        return None


def request(
    operation: bytes,
    path: bytes,
    hidden: tuple[str, ...] = (),
    *,
    to: bytes = b"",
    mode: int = 0,
    flags: int = 0,
    depth: int = 0,
    limit: int = 0,
    size: int = 0,
    matches: tuple[bytes, ...] = (),
) -> bytes:
    """The frame that asks for an operation. Mounts in ``hidden`` are not shown, whichever path leads into them."""
    items = [(b"v", operation), (b"p", path), *((b"x", os.fsencode(one)) for one in hidden)]
    if to:
        items.append((b"q", to))
    if matches:
        items.append((b"t", b"".join(matches)))
    if size:
        items.append((b"z", struct.pack(">Q", size)))
    numbers = ((b"m", mode), (b"f", flags), (b"d", depth), (b"n", limit))
    items += [(tag, struct.pack(">I", value)) for tag, value in numbers if value]
    return frame(FILES, b"".join(frame(tag, value) for tag, value in items))


def part(offset: int, length: int) -> bytes:
    """Of a ``get``: send these bytes now."""
    return frame(b"I", struct.pack(">QQ", offset, length))


def info_of(payload: bytes) -> FileInfo:
    """Raises Malformed."""
    try:
        kind, mode, size, mtime, ctime, inode, _ = _META.unpack_from(payload)
    except struct.error as error:
        raise Malformed("metadata of another length") from error
    return FileInfo(_TYPES.get(kind, "unknown"), size, mode & 0o7777, mtime, ctime, inode, payload[_META.size :])


def entries_of(payload: bytes) -> Iterator[Entry]:
    """Raises Malformed."""
    while payload:
        size = _number(payload)
        record, payload = payload[_ENTRY.size : _ENTRY.size + size], payload[_ENTRY.size + size :]
        if len(record) != size:
            raise Malformed("a torn list")
        info = info_of(record[: _META.size])
        rest = record[_META.size :]
        length = _number(rest)
        path, target = rest[_ENTRY.size : _ENTRY.size + length], rest[_ENTRY.size + length :]
        if len(path) != length or not path or b"\0" in path:
            raise Malformed("an entry without a name")
        yield Entry(path, FileInfo(info.type, info.size, info.mode, info.mtime_ns, info.ctime_ns, info.inode, target))


def _number(payload: bytes) -> int:
    try:
        return int(_ENTRY.unpack_from(payload)[0])
    except struct.error as error:
        raise Malformed("a torn list") from error


def change_of(payload: bytes) -> Change:
    """Raises Malformed."""
    if len(payload) < 2 or payload[:1] not in _EVENTS:
        raise Malformed("an unknown change")
    return Change(_EVENTS[payload[:1]], payload[2:], bool(payload[1]))


def count_of(payload: bytes) -> int:
    """Raises Malformed."""
    if len(payload) != 8:
        raise Malformed("a count of another length")
    return int.from_bytes(payload, "big")


def error_of(payload: bytes) -> BoilerhouseError:
    """The error that a refusal stands for. Raises Malformed."""
    try:
        number, reason, count = _FAILED.unpack_from(payload)
    except struct.error as error:
        raise Malformed("a refusal of another length") from error
    if number > MAX_ERRNO:
        raise Malformed(f"error {number}")
    name = payload[_FAILED.size :].decode(errors="backslashreplace")
    shown = "".join(char if char.isprintable() else "?" for char in name[:200])
    return _by_reason(number, bytes(reason), int(count), shown) or _by_errno(number, shown)


def _by_reason(number: int, reason: bytes, count: int, name: str) -> BoilerhouseError | None:
    at = f" at {name!r}" if name else ""
    match reason:
        case b"h" if number != errno.EACCES:
            return file_errors.FileDenied("The claim's secrets are not where they were mounted, so nothing is shown.")
        case b"h":
            return file_errors.FileDenied("The path leads into the secrets of the claim, which are never shown.")
        case b"k":
            return file_errors.FileDenied("It is a file of the kernel, which has no length. Read it with a command.")
        case b"t":
            return file_errors.FileDenied("It is neither a regular file nor a directory.")
        case b"m":
            return file_errors.FileChanged()
        case b"a":
            why = _ARCHIVES.get(number, os.strerror(number))
            return file_errors.BadArchive(f"The archive{at}: {why}. Entries unpacked before: {count}.")
        case b"." if name:
            why = "the name is absolute or leaves the directory"
            return file_errors.BadArchive(f"The archive{at}: {why}. Entries unpacked before: {count}.")
        case b".":
            return file_errors.BadPath("must be absolute, without NUL, and have at most 4095 bytes.")
    return None


_ARCHIVES = {
    errno.ENODATA: "it ends in the middle",
    errno.EBADMSG: "it is no tar archive, or is damaged",
    errno.E2BIG: "an extended header is too long",
    errno.ENOTSUP: "it has an entry that is neither a file, a directory nor a link",
    errno.ENOENT: "a hard link names no file of it",
    errno.ENAMETOOLONG: "a name is too long",
    errno.EFBIG: "a size is too large",
}


def _by_errno(number: int, name: str) -> BoilerhouseError:
    suffix = f" ({name})" if name else ""
    match number:
        case errno.ENOENT:
            return file_errors.FileMissing(f"There is no such file or directory{suffix}.")
        case errno.EACCES | errno.EPERM:
            return file_errors.FileDenied(f"The container's user may not do this{suffix}.")
        case errno.EROFS:
            return file_errors.FileDenied(f"The file system is read-only there{suffix}.")
        case errno.ELOOP:
            return file_errors.FileDenied(f"A link is in the way{suffix}.")
        case errno.EEXIST | errno.ENOTEMPTY:
            return file_errors.FileExists(f"Something else has this name already{suffix}.")
        case errno.EISDIR:
            return file_errors.IsDirectory(f"It is a directory{suffix}.")
        case errno.ENOTDIR:
            return file_errors.NotDirectory()
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return file_errors.NoSpace()
        case errno.EBUSY | errno.ETXTBSY:
            return file_errors.FileBusy()
        case errno.EXDEV:
            return file_errors.OtherFileSystem()
        case errno.ENAMETOOLONG:
            return file_errors.BadPath("a name has more than 255 bytes, or the path more than 4095.")
        case errno.EINVAL:
            return file_errors.BadPath("the file system does not accept this name or operation.")
        case errno.ESTALE:
            return file_errors.FileChanged(f"A file became shorter while it was read{suffix}. Try again.")
    return file_errors.FilesFailed(f"The operation failed in the container: {os.strerror(number)}{suffix}.")
