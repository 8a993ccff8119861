"""Names of blobs. Azure takes a backslash for a slash, and drops a dot at the end of a folder's or file's name.

rclone stores each as a symbol of the same look, and such a symbol in a name after a quote. The client in the process
spells keys as rclone does, and gives listings without these symbols: other kinds of sinks know nothing of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

QUOTE, BACKSLASH, DOT = "\u201b", "\uff3c", "\uff0e"
_TO_STORE = re.compile(rf"{QUOTE}{QUOTE}|{BACKSLASH}|\\|[.{DOT}](?=/|\Z)")
_FROM_STORE = re.compile(rf"{QUOTE}{QUOTE}|{QUOTE}{BACKSLASH}|{BACKSLASH}|{QUOTE}{DOT}(?=/|\Z)|{DOT}(?=/|\Z)")
_STORED = {BACKSLASH: f"{QUOTE}{BACKSLASH}", "\\": BACKSLASH, DOT: f"{QUOTE}{DOT}", ".": DOT}
_READ = {stored: key for key, stored in _STORED.items()}
_LOST = re.compile(rf"{QUOTE}\.(?=/|\Z)")


def lost(paths: Iterable[str]) -> list[str]:
    """Those of a container's paths that rclone would store and not find again: it reads their ending as quoted."""
    return sorted(path for path in paths if _LOST.search(path))


def stored(key: str) -> str:
    """The blob's name for a key."""
    return _TO_STORE.sub(lambda match: _STORED.get(match[0], match[0]), key)


def read(name: str) -> str:
    """The key for a blob's name."""
    return _FROM_STORE.sub(lambda match: _READ.get(match[0], match[0]), name)
