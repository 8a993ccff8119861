"""A mapping's pattern: the plan's meaning, for rclone and for us.

``*.pt`` matches the mapping's top level only; ``**/*.log`` any depth, the top included. rclone reads both otherwise
(its ``*.pt`` matches at any depth, its ``**/*.log`` not at the top), so patterns are translated.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

MAX_LENGTH = 200


def check(pattern: str) -> str | None:
    """What is wrong with the pattern; None if it can be used."""
    if not pattern or len(pattern) > MAX_LENGTH:
        return f"Use 1 to {MAX_LENGTH} characters, or leave the pattern out for everything."
    if "{{" in pattern or "}}" in pattern:
        return "Regular expressions are not allowed."
    if "***" in pattern:
        return "Three stars mean nothing; use * or **."
    if pattern.startswith(("/", "./")) or ".." in pattern.split("/") or "//" in pattern or pattern.endswith("/"):
        return "Give a pattern relative to containerPath that matches files, such as **/*.log."
    try:
        _regex(pattern)
    except ValueError as error:
        return str(error)
    return None


def to_rclone(pattern: str) -> list[str]:
    """The include filters with the pattern's meaning: anchored, and at the top too where it begins with ``**/``."""
    filters = [f"/{pattern}"]
    if pattern.startswith("**/"):
        filters.append(f"/{pattern[3:]}")
    return filters


def matcher(pattern: str) -> Callable[[str], bool] | None:
    """Whether a relative path matches; None stands for everything."""
    if not pattern:
        return None
    regex = _regex(pattern)
    return lambda path: regex.fullmatch(path) is not None


@cache
def _regex(pattern: str) -> re.Pattern[str]:
    out, i = "", 0
    depth = 0
    while i < len(pattern):
        char = pattern[i]
        if pattern.startswith("**/", i) and i == 0:
            out, i = out + "(?:.*/)?", i + 3
            continue
        if pattern.startswith("**", i):
            out, i = out + ".*", i + 2
            continue
        if char == "*":
            out += "[^/]*"
        elif char == "?":
            out += "[^/]"
        elif char == "[":
            end = pattern.find("]", i + 2)
            if end < 0:
                raise ValueError("A [ has no ].")
            out += "[" + pattern[i + 1 : end].replace("\\", "\\\\") + "]"
            i = end
        elif char == "{":
            depth += 1
            out += "(?:"
        elif char == "}":
            depth -= 1
            if depth < 0:
                raise ValueError("A } has no {.")
            out += ")"
        elif char == "," and depth:
            out += "|"
        elif char == "\\":
            i += 1
            if i == len(pattern):
                raise ValueError("A \\ must not end the pattern.")
            out += re.escape(pattern[i])
        else:
            out += re.escape(char)
        i += 1
    if depth:
        raise ValueError("A { has no }.")
    try:
        return re.compile(out, re.DOTALL)
    except re.error as error:
        raise ValueError(f"Not a pattern: {error}") from error
