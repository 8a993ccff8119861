"""Names of files: one spelling to compare them by, whatever a sink made of them, and one to show them in."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_QUOTE = "\u201b"
_SYMBOLS = "\u2400-\u241f\u2421\uff0e\uff0f"
_QUOTED = re.compile(f"{_QUOTE}+([{_SYMBOLS}]?)")
"""Quotes before a symbol go; of others in a row one stays."""


def plain(path: str) -> str:
    """How a path is compared: control characters as symbols, bytes that are not UTF-8 in rclone's quoting.

    Sinks give names back in either way, some with the quoting quoted once more. Two names of one directory may be
    equal here, but no two of which one holds only characters that rclone leaves as they are.
    """
    if path.isprintable() and _QUOTE not in path:
        return path
    shown = ""
    for char in path:
        code = ord(char)
        if code < 0x20:
            shown += chr(0x2400 + code)
        elif code == 0x7F:
            shown += "\u2421"
        elif 0xDC80 <= code <= 0xDCFF:
            shown += f"{_QUOTE}{code - 0xDC00:02X}"
        else:
            shown += char
    return _QUOTED.sub(lambda found: found[1] or _QUOTE, shown)


def folders(paths: Iterable[str]) -> set[str]:
    """All that the paths lie in, each once; without the root, which has no name."""
    found: set[str] = set()
    for path in paths:
        parent = path.rpartition("/")[0]
        while parent and parent not in found:
            found.add(parent)
            parent = parent.rpartition("/")[0]
    return found


def looks(path: str) -> str:
    """The same for paths that look alike, or that a sink without case or with one Unicode form takes for one."""
    return unicodedata.normalize("NFC", plain(path)).casefold()


def show(path: str) -> str:
    """A path in words: what is not plain ASCII in it is spelled out too, so that look-alikes can be told apart."""
    if path.isascii() and path.isprintable():
        return path
    spelled = ascii(path)[1:-1]
    readable = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in path)
    return readable if readable == spelled else f"{readable} ({spelled})"
