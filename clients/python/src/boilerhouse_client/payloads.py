"""What an upload sends, and whether it can be sent once more."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

CHUNK = 256 * 1024
BLOCK = 512


@dataclass(frozen=True)
class Payload:
    """``fresh`` gives the pieces from the beginning; a second time only if ``is_repeatable``."""

    fresh: Callable[[], Any]
    """An iterable of bytes, or with the asynchronous client also an asynchronous one."""
    length: int | None
    """Bytes; None if unknown."""
    is_repeatable: bool


def payload_of(source: Any) -> Payload:
    """Of text, bytes, a file that is open for reading, or anything that yields bytes."""
    if isinstance(source, str):
        source = source.encode()
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
        return Payload(lambda: (data,) if data else (), len(data), True)
    if not callable(getattr(source, "read", None)):
        return Payload(lambda: source, None, False)
    if not source.seekable():
        return Payload(lambda: iter(lambda: source.read(CHUNK), b""), None, False)
    start = source.tell()
    length = source.seek(0, os.SEEK_END) - start

    def again() -> Iterator[bytes]:
        source.seek(start)
        return exactly(source, length)

    return Payload(again, length, True)


def exactly(file: IO[bytes], length: int) -> Iterator[bytes]:
    """So many bytes of the file. Raises ValueError if it has become shorter."""
    while length:
        piece = file.read(min(CHUNK, length))
        if not piece:
            raise ValueError("The file has become shorter while it was sent.")
        length -= len(piece)
        yield piece


def packed(directory: Path) -> Payload:
    """The directory as a tar archive: regular files, directories and links, with their modes and times."""
    return Payload(lambda: _pack(directory), None, True)


def _pack(directory: Path) -> Iterator[bytes]:
    for path in _below(directory):
        status = path.lstat()
        info = tarfile.TarInfo(str(path.relative_to(directory)))
        info.mode, info.mtime = stat.S_IMODE(status.st_mode), int(status.st_mtime)
        if stat.S_ISLNK(status.st_mode):
            info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)
        elif stat.S_ISDIR(status.st_mode):
            info.type = tarfile.DIRTYPE
        if not stat.S_ISREG(status.st_mode):
            yield _head(info)
            continue
        with path.open("rb") as file:
            info.size = os.fstat(file.fileno()).st_size
            yield _head(info)
            yield from exactly(file, info.size)
        yield bytes(-info.size % BLOCK)
    yield bytes(2 * BLOCK)


def _head(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def _below(directory: Path) -> Iterable[Path]:
    """Parents before their content; sockets, FIFOs and devices are left out."""
    for path in sorted(directory.iterdir()):
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISDIR(mode):
            yield path
        if stat.S_ISDIR(mode):
            yield from _below(path)


def unpack(archive: Path, directory: Path) -> None:
    """Unpack a container's archive below the directory.

    A container is not trusted: what would be written elsewhere, and what is a device, raises tarfile.FilterError.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as opened:
        opened.extractall(directory, filter="data")
