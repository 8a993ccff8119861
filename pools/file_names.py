"""File names: a canonical spelling for comparison, whatever spelling a sink uses, and a printable one."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_QUOTE = "\u201b"
_SYMBOLS = "\u2400-\u241f\u2421\uff0e\uff0f"
_QUOTED = re.compile(f"{_QUOTE}+([{_SYMBOLS}]?)")
"""Quotes before a symbol are removed; of several other quotes in a row, one stays."""


def plain(path: str) -> str:
    """The canonical spelling of a path: control characters as symbols, bytes that are not UTF-8 in rclone's quoting.

    Sinks return names in either way, some with the quoting quoted again. Two names of one directory may have the same
    canonical spelling, but not if one of them contains only characters that rclone does not quote.
    """
    if path.isprintable() and _QUOTE not in path:
        return path
    text = ""
    for char in path:
        code = ord(char)
        if code < 0x20:
            text += chr(0x2400 + code)
        elif code == 0x7F:
            text += "\u2421"
        elif 0xDC80 <= code <= 0xDCFF:
            text += f"{_QUOTE}{code - 0xDC00:02X}"
        else:
            text += char
    return _QUOTED.sub(lambda match: match[1] or _QUOTE, text)


def folders(paths: Iterable[str]) -> set[str]:
    """All parent directories of the paths, each once; without the root, which has no name."""
    result: set[str] = set()
    for path in paths:
        parent = path.rpartition("/")[0]
        while parent and parent not in result:
            result.add(parent)
            parent = parent.rpartition("/")[0]
    return result


def looks(path: str) -> str:
    """A key that is equal for names that look alike, or that a sink without case or with one Unicode form treats as
    equal."""
    return unicodedata.normalize("NFC", plain(path)).casefold()


def show(path: str) -> str:
    """A printable path: characters outside ASCII are also spelled out, so that look-alikes can be distinguished."""
    if path.isascii() and path.isprintable():
        return path
    spelled = ascii(path)[1:-1]
    readable = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in path)
    return readable if readable == spelled else f"{readable} ({spelled})"
