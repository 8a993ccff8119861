"""Where in a JSON text a value stands, for messages that name its line."""

from __future__ import annotations

import json
import re

_SPACE = re.compile(r"\s*")
_read = json.JSONDecoder().raw_decode


def line_of(text: str, pointer: str) -> int:
    """The line of the value at the JSON pointer, or of the nearest value above it; 1 is the first.

    ``text`` must be valid JSON. Where a name occurs twice, the last one counts, as in the parsed value.
    """
    names = [name.replace("~1", "/").replace("~0", "~") for name in pointer.split("/")[1:]]
    at = _after_space(text, 0)
    for name in names:
        inner = _member(text, at, name)
        if inner is None:
            break
        at = inner
    return text.count("\n", 0, at) + 1


def _member(text: str, at: int, name: str) -> int | None:
    """Where the member of that name or number begins, in the object or list that begins at ``at``."""
    if text[at] not in "{[":
        return None
    is_object, place, number = text[at] == "{", None, 0
    at = _after_space(text, at + 1)
    while text[at] not in "}]":
        own: str | int = number
        if is_object:
            own, at = _read(text, at)
            at = _after_space(text, _after_space(text, at) + 1)  # the colon
        if str(own) == name:
            place = at
        at = _after_space(text, _read(text, at)[1])
        if text[at] == ",":
            at = _after_space(text, at + 1)
        number += 1
    return place


def _after_space(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    assert space is not None
    return space.end()
