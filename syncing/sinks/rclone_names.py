"""Names at servers that are rclone themselves (``rclone serve``): they take a key for a path in rclone's own spelling.

A key comes back as it was only if it is one in that spelling: control characters as symbols, and a symbol or the quote
itself behind a quote. rclone's client spells keys so when it is told to, but for bytes that are not UTF-8: it quotes
them once, the server quotes the quote, and from then on the name is another one. So those are renamed on the way, to
what the server would make of them; a restore knows the names by the manifest. Other WebDAV servers keep any name that
is UTF-8 without control characters, so the same serves them.
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
"""Plain characters and bytes that are not UTF-8; rclone's rules cannot hold a colon or an equals."""
_UNQUOTED = re.compile(f"(?<!{QUOTE}){QUOTE}(?=[0-9A-F]{{2}})")
MAX_RULES = 1000


def listed(key: str) -> str:
    """How the server lists a key that it, or an older client of ours, spelled so."""
    symbols = _CONTROL.sub(lambda found: "\u2421" if found[0] == "\x7f" else chr(0x2400 + ord(found[0])), key)
    return _UNQUOTED.sub(QUOTE * 2, symbols)


def respelling(paths: Collection[str]) -> list[str]:
    """rclone's flags that rename what is not UTF-8 in these paths. Raises Unsaveable where that is not possible."""
    odd = {path for path in paths if _BROKEN.search(path)}
    if not odd:
        return []
    names = {_standard(name) for path in paths if not path.isascii() for name in path.split("/")}  # no rule is ASCII
    for piece in (_BROKEN, _RUN):
        found = {run for name in names for run in piece.findall(name) if _BROKEN.search(run)}
        rules = sorted(found, key=len, reverse=True)
        if len(rules) <= MAX_RULES and all(_apply(rules, name) == _renamed(name).encode() for name in names):
            return [f"--name-transform=all,replace={rule}:{_renamed(rule)}" for rule in rules]
    raise Unsaveable(f"{len(odd)} names are not UTF-8 and this sink cannot tell them from others: {sorted(odd)[0]!a}")


def _standard(name: str) -> str:
    """rclone's own spelling of a name."""
    quoted = _SYMBOL.sub(lambda found: QUOTE + found[0], name)
    return _CONTROL.sub(lambda found: listed(found[0]), quoted)


def _renamed(name: str) -> str:
    return _BROKEN.sub(lambda found: "".join(f"{QUOTE * 2}{ord(char) - 0xDC00:02X}" for char in found[0]), name)


def _apply(rules: list[str], name: str) -> bytes:
    """What rclone makes of a name by these rules, one after another."""
    content = name.encode("utf-8", "surrogateescape")
    for rule in rules:
        content = content.replace(rule.encode("utf-8", "surrogateescape"), _renamed(rule).encode())
    return content
