"""How much of an answer of a sink is read into memory: whoever runs it, or writes there, decides how long it is."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from syncing.errors import Oversized

MOST_BYTES = 256 << 20
"""The marker of a million files takes a tenth of that."""
MOST_UNPACKED_BYTES = 1 << 30
"""What names a million files takes less, unless all their names are as long as names get."""
CHUNK = 1 << 16
_most: ContextVar[int] = ContextVar("most", default=MOST_BYTES)


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """What this thread asks in the block is answered by no more than so many bytes, or by Oversized."""
    token = _most.set(size)
    try:
        yield
    finally:
        _most.reset(token)


def most() -> int:
    return _most.get()


def check(size: int, what: str) -> None:
    """Raise Oversized for what is said to be longer than is read, before it is."""
    if size > most():
        raise Oversized(f"{what} holds {size} bytes; at most {most()} are read.")


def joined(parts: Iterator[bytes], what: str) -> bytes:
    """All parts as one. Raises Oversized as soon as they are longer than is read."""
    found = bytearray()
    for part in parts:
        found += part
        if len(found) > most():
            raise Oversized(f"{what} is longer than {most()} bytes, and no more are read.")
    return bytes(found)


def packed(content: bytes, level: int, location: str) -> bytes:
    """Compressed. Raises Oversized where ``unpacked``, or who reads it before, would not take it."""
    found = gzip.compress(content, level, mtime=0)
    if len(content) > MOST_UNPACKED_BYTES or len(found) > MOST_BYTES:
        raise Oversized(f"{location} holds so many names that what a save notes of them takes {len(content)} bytes.")
    return found


def unpacked(content: bytes, most: int) -> bytes:
    """What was compressed. Raises ValueError for half of it, Oversized: a few bytes can stand for any number."""
    unpacking = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        found = unpacking.decompress(content, most)
    except zlib.error as error:
        raise ValueError("half an object") from error
    if unpacking.eof:
        return found
    if len(found) >= most:
        raise Oversized(f"What is longer than {most} bytes when it is unpacked is not read.")
    raise ValueError("half an object")
