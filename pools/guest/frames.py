"""The frames between this host and a guest agent: type (1 byte), length (4, big endian), payload."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Iterator, Mapping

RUN, INPUT, INPUT_END, SIGNAL, WINDOW = b"R", b"I", b"E", b"S", b"W"
HELLO, STDOUT, STDERR, EXIT, REFUSED = b"H", b"1", b"2", b"X", b"!"
AT_LIMIT, AT_REQUEST, AT_FORK, AT_DIRECTORY, AT_EXECVE = b"l", b"r", b"f", b"d", b"x"
"""Where a request failed; nothing has run."""
MAX_PAYLOAD = 1 << 20
MAX_CHUNK = 64 << 10
MAX_ERRNO = 4095
"""The kernel's own bound."""
MANY, REST = 500, 4
"""After so many frames in what arrived at once, the reader rests for so many times as long as they took."""
_HEAD = struct.Struct(">cI")
_EXIT = struct.Struct(">IBBI")
_REFUSED = struct.Struct(">cI")


class Malformed(Exception):
    """The agent sent something that is no frame of the protocol."""


def frame(kind: bytes, payload: bytes = b"") -> bytes:
    return _HEAD.pack(kind, len(payload)) + payload


def window(columns: int, rows: int) -> bytes:
    return struct.pack(">HH", rows, columns)


def request(
    command: Iterable[str],
    environment: Mapping[str, str] | None = None,
    *,
    wants_input: bool = False,
    timeout_ms: int = 0,
    size: tuple[int, int] | None = None,
    directory: str | None = None,
    more: bytes = b"",
) -> bytes:
    """The frame that runs a command; with ``size`` (columns, rows) on a terminal, with ``more`` items of the request.
    Raises ValueError if it is too large.

    Words that are not text arrive as the bytes they stand for (``surrogateescape``).
    """
    items = [(b"a", word) for word in command]
    items += [(b"e", f"{name}={value}") for name, value in (environment or {}).items()]
    if directory is not None:
        items.append((b"d", directory))
    payload = b"".join(frame(tag, text.encode(errors="surrogateescape")) for tag, text in items) + more
    if wants_input:
        payload += frame(b"i")
    if timeout_ms:
        payload += frame(b"o", struct.pack(">I", min(timeout_ms, 0xFFFFFFFF)))
    if size is not None:
        payload += frame(b"t", window(*size))
    if len(payload) > MAX_PAYLOAD:
        raise ValueError("the command is too long")
    return frame(RUN, payload)


def inputs(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), MAX_CHUNK):
        yield frame(INPUT, data[start : start + MAX_CHUNK])


class Reader:
    """Takes bytes as they arrive and returns whole frames."""

    def __init__(self, max_payload: int = MAX_PAYLOAD) -> None:
        self._data, self.max_payload = bytearray(), max_payload

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Each complete frame as (kind, payload). Raises Malformed for a payload larger than allowed.

        An agent that sends many tiny frames is read more slowly: an honest one then puts more into each.
        """
        began, count = time.monotonic(), 0
        for one in self.split(data):
            count += 1  # of what was taken, if the caller stops earlier
            yield one
        if count > MANY:
            time.sleep(REST * (time.monotonic() - began))

    def split(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The same without a rest, for an event loop, which must not sleep in a thread's way."""
        self._data += data
        while len(self._data) >= _HEAD.size:
            kind, length = _HEAD.unpack_from(self._data)
            if length > self.max_payload:
                raise Malformed(f"a frame of {length} bytes")
            end = _HEAD.size + length
            if len(self._data) < end:
                break
            with memoryview(self._data) as view:  # a slice of the array itself would be one more copy
                payload = bytes(view[_HEAD.size : end])
            del self._data[:end]
            yield kind, payload


def version_of(payload: bytes) -> int:
    """Of a hello: the version of the protocol that the agent speaks. Raises Malformed."""
    if len(payload) != 2:
        raise Malformed("a hello of another length")
    return int.from_bytes(payload)


def end_of(payload: bytes) -> tuple[int, bool]:
    """Of a last frame: the exit code, and whether the command was killed at its deadline. Raises Malformed."""
    try:
        code, _, is_late, _ = _EXIT.unpack(payload)
    except struct.error as error:
        raise Malformed("an end of another length") from error
    if code > 255:
        raise Malformed(f"exit code {code}")
    return int(code), bool(is_late)


def refusal_of(payload: bytes) -> tuple[bytes, int]:
    """Of a refusal: where it failed, and the errno. Raises Malformed."""
    try:
        stage, error_number = _REFUSED.unpack(payload)
    except struct.error as error:
        raise Malformed("a refusal of another length") from error
    if error_number > MAX_ERRNO:
        raise Malformed(f"error {error_number}")
    return bytes(stage), int(error_number)
