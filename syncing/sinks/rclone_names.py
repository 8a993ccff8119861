"""File names at servers that are rclone themselves (``rclone serve``), which read a key as a path in rclone's own
spelling.

A key comes back unchanged only in that spelling: control characters as symbols, and a symbol or the quote itself after
a quote. rclone's client uses this spelling if configured, except for bytes that are not UTF-8: it quotes them once, the
server quotes the quote, and the name changes. So these are renamed during the transfer, to the server's spelling; a
restore gets the names from the manifest. Other WebDAV servers keep any UTF-8 name without control characters, so this
works for them too.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from syncing.errors import Unsaveable

ENCODING = "Slash,Ctl,Del,Dot"
QUOTE = "\u201b"
_SYMBOL = re.compile(f"[\u2400-\u241f\u2421\uff0e\uff0f{QUOTE}]")
_CONTROL = re.compile("[\x01-\x1f\x7f]")
_BROKEN = re.compile("[\udc80-\udcff]+")
_RUN = re.compile("[ -9;<>-~\udc80-\udcff]+")
"""Plain characters, and bytes that are not UTF-8; rclone's rules cannot contain a colon or an equals sign."""
_UNQUOTED = re.compile(f"(?<!{QUOTE}){QUOTE}(?=[0-9A-F]{{2}})")
MAX_RULES = 1000


def listed(key: str) -> str:
    """The server's spelling of a key that it, or an older client of ours, wrote."""
    symbols = _CONTROL.sub(lambda match: "\u2421" if match[0] == "\x7f" else chr(0x2400 + ord(match[0])), key)
    return _UNQUOTED.sub(QUOTE * 2, symbols)


def respelling(paths: Collection[str]) -> list[str]:
    """rclone flags that rename what is not UTF-8 in these paths. Raises Unsaveable if that is not possible."""
    odd = {path for path in paths if _BROKEN.search(path)}
    if not odd:
        return []
    names = {_standard(name) for path in paths if not path.isascii() for name in path.split("/")}  # no rule is ASCII
    for piece in (_BROKEN, _RUN):
        runs = {run for name in names for run in piece.findall(name) if _BROKEN.search(run)}
        rules = sorted(runs, key=len, reverse=True)
        if len(rules) <= MAX_RULES and all(_apply(rules, name) == _renamed(name).encode() for name in names):
            return [f"--name-transform=all,replace={rule}:{_renamed(rule)}" for rule in rules]
    raise Unsaveable(
        f"{len(odd)} names are not UTF-8, and this sink cannot distinguish them from others: {sorted(odd)[0]!a}"
    )


def _standard(name: str) -> str:
    """rclone's own spelling of a name."""
    quoted = _SYMBOL.sub(lambda match: QUOTE + match[0], name)
    return _CONTROL.sub(lambda match: listed(match[0]), quoted)


def _renamed(name: str) -> str:
    return _BROKEN.sub(lambda match: "".join(f"{QUOTE * 2}{ord(char) - 0xDC00:02X}" for char in match[0]), name)


def _apply(rules: list[str], name: str) -> bytes:
    """The name after these rename rules, applied in order."""
    content = name.encode("utf-8", "surrogateescape")
    for rule in rules:
        content = content.replace(rule.encode("utf-8", "surrogateescape"), _renamed(rule).encode())
    return content
