"""Limits how much of a sink's answer is read into memory, because its operator or any writer there decides its
length."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from syncing.errors import Oversized

MOST_BYTES = 256 << 20
"""The marker of a million files takes a tenth of this."""
MOST_UNPACKED_BYTES = 1 << 30
"""A listing of a million files takes less, unless all names have the maximum length."""
CHUNK = 1 << 16
_most: ContextVar[int] = ContextVar("most", default=MOST_BYTES)


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """Answers to this thread's queries in the block have at most this many bytes, otherwise Oversized is raised."""
    token = _most.set(size)
    try:
        yield
    finally:
        _most.reset(token)


def most() -> int:
    return _most.get()


def check(size: int, what: str) -> None:
    """Raise Oversized before reading if the declared size exceeds the limit."""
    if size > most():
        raise Oversized(f"{what} has {size} bytes; the limit is {most()}.")


def joined(parts: Iterator[bytes], what: str) -> bytes:
    """All parts joined. Raises Oversized as soon as they exceed the limit."""
    content = bytearray()
    for part in parts:
        content += part
        if len(content) > most():
            raise Oversized(f"{what} is longer than the limit of {most()} bytes.")
    return bytes(content)


def packed(content: bytes, level: int, location: str) -> bytes:
    """Compressed. Raises Oversized if ``unpacked`` could not read it."""
    result = gzip.compress(content, level, mtime=0)
    if len(content) > MOST_UNPACKED_BYTES or len(result) > MOST_BYTES:
        raise Oversized(f"{location} has so many names that the record of a save takes {len(content)} bytes.")
    return result


def unpacked(content: bytes, most: int) -> bytes:
    """Decompressed. Raises ValueError if it is truncated, Oversized: a few bytes can stand for any number."""
    unpacking = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        result = unpacking.decompress(content, most)
    except zlib.error as error:
        raise ValueError("truncated object") from error
    if unpacking.eof:
        return result
    if len(result) >= most:
        raise Oversized(f"The object is longer than {most} bytes when decompressed.")
    raise ValueError("truncated object")
