"""Control characters in text, and how to display untrusted text.

Tenants choose file names and write logs. In a terminal or on a page, a control character can move the cursor, ring the
bell, add a line that was not written, or reverse the direction of text. Everything shown to people passes through
``printable``.
"""

from __future__ import annotations

import codecs
import re

_DANGEROUS = "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_IN_TEXT = re.compile(f"[{_DANGEROUS}]|\r(?!\n)")
"""C0 except tab and newline, DEL, C1, line and paragraph separators, direction marks, lone surrogates, a lone CR."""
_IN_LINE = re.compile(f"[{_DANGEROUS}\t\n\r]")
_PLAIN = bytes([*b"\t\n\r", *range(0x20, 0x7F)])
_NOT_PLAIN = re.compile(rb"[\x00-\x1f\x7f]|\xc2[\x80-\x9f]|\xd8\x9c|\xe2\x80[\x8e\x8f\xa8-\xae]|\xe2\x81[\xa6-\xa9]")
"""The same in UTF-8 without ``_PLAIN``: pages contain little else, and a pattern over all of it takes milliseconds."""


def has_control(text: str) -> bool:
    """Whether the text contains a control character: a newline, an escape, a NUL …"""
    return any(ord(character) < 32 or 127 <= ord(character) < 160 for character in text)


def printable(text: str) -> str:
    r"""The text with control characters escaped, as ``\x1b`` and ``\u202e``; newlines stay."""
    return text if text.isprintable() else _IN_TEXT.sub(_written_out, text)


def one_line(text: str) -> str:
    """The same as a single line."""
    return text if text.isprintable() else _IN_LINE.sub(_written_out, text)


def printable_utf8(data: bytes) -> bytes:
    """``printable`` for encoded text; invalid UTF-8 is replaced if anything is."""
    if data.count(b"\r") == data.count(b"\r\n") and not _NOT_PLAIN.search(data.translate(None, _PLAIN)):
        return data
    return printable(data.decode(errors="replace")).encode()


def lines(text: str) -> list[str]:
    """The lines of the text. Only a newline ends a line, not a carriage return."""
    parts = text.split("\n")
    if not parts[-1]:
        parts.pop()
    return [line.removesuffix("\r") for line in parts]


class Printer:
    """``printable_utf8`` for a stream of chunks, cut anywhere."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        self._pending = ""

    def feed(self, data: bytes, *, is_last: bool = False) -> bytes:
        text = self._pending + self._decode(data, is_last)
        self._pending = "\r" if text.endswith("\r") and not is_last else ""  # a newline may follow
        return printable_utf8(text.removesuffix(self._pending).encode())


def _written_out(match: re.Match[str]) -> str:
    character = match.group()
    escapes = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
    return escapes.get(character) or (
        f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"
    )
