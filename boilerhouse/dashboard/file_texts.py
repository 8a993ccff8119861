"""Content of files as text: whether it is text, whether a browser's form can carry it unchanged, and how two differ."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from boilerhouse.core.text import printable

VIEWED = 256 << 10
"""Bytes of a file that its page shows and its editor takes: encoded for a form, three times as many are below the
largest body."""
MAX_COMPARED = 1000
"""Changed lines on either side that are compared one by one: the time is quadratic."""
AROUND = 3
"""Lines around a change that are shown."""
TOO_LONG = f"Only files of at most {VIEWED >> 10} KiB can be edited here."
UNENDED = " ⟨no line end⟩"
"""Stands after the last line of a text that does not end with a line feed."""
CRLF, LF = "crlf", "lf"

Line = tuple[str, str]
"""``add``, ``del`` or empty, and the line with its sign."""


@dataclass(frozen=True, slots=True)
class Text:
    """A file's content as text. ``why_not`` says why a form would change it; empty if it can be edited."""

    text: str
    newlines: str = LF
    why_not: str = ""


def read(data: bytes, *, is_whole: bool) -> Text | None:
    """The text; None if it is binary. Of a part, a character cut at its end is left out."""
    if b"\0" in data:
        return None
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        if is_whole or error.start < len(data) - 3 or error.reason != "unexpected end of data":
            return None
        text = data[: error.start].decode()
    returns, pairs, feeds = text.count("\r"), text.count("\r\n"), text.count("\n")
    newlines = CRLF if pairs else LF
    return Text(text, newlines, _why_not(text, is_whole=is_whole, is_mixed=returns != pairs or pairs not in (0, feeds)))


def _why_not(text: str, *, is_whole: bool, is_mixed: bool) -> str:
    if not is_whole:
        return TOO_LONG
    if is_mixed:
        return "Its lines end in different ways, which a form would make one. Download it, and upload it again."
    if printable(text) != text:
        return "It contains control characters, which a form would change. Download it, and upload it again."
    return ""


def why_not_sent(text: str, length: int) -> str:
    """Why what a form sent cannot be saved, ``length`` bytes long; empty if it can.

    Pages spell control characters out, so the next save would store their spelling.
    """
    if length > VIEWED:
        return TOO_LONG
    if printable(text) != text:
        return "The text contains control characters, which are written out below, as in \\u202e. Remove them."
    return ""


def plain(text: str) -> str:
    """What a form sent, or a file contains, with LF alone."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def encode(text: str, newlines: str) -> bytes:
    """The content of the file for what a form sent."""
    lines = plain(text)
    return (lines.replace("\n", "\r\n") if newlines == CRLF else lines).encode()


def diff(old: str, new: str) -> list[Line]:
    """The lines that differ, with those around them; empty if none does.

    What is equal at both ends is left out first. If the rest is long, it is shown as replaced.
    """
    before, after = _lines(old), _lines(new)
    start = _equal(before, after)
    end = _equal(before[start:][::-1], after[start:][::-1])
    old_part, new_part = before[start : len(before) - end], after[start : len(after) - end]
    if not old_part and not new_part:
        return []
    first = max(0, start - AROUND)
    head, tail = before[first:start], before[len(before) - end :][:AROUND]
    if max(len(old_part), len(new_part)) > MAX_COMPARED:
        parts = _replaced(old_part, new_part)
    else:
        parts = _compare(old_part, new_part, start)
    return [("", f"line {first + 1}"), *_same(head), *parts, *_same(tail)]


def _lines(text: str) -> list[str]:
    """The lines. ``UNENDED`` follows the last one if no line feed ends it."""
    lines = plain(text).split("\n")
    last = lines.pop()
    return [*lines, last + UNENDED] if last else lines


def _replaced(old: list[str], new: list[str]) -> list[Line]:
    parts = [("del", f"- {line}") for line in old[:MAX_COMPARED]]
    parts += [("add", f"+ {line}") for line in new[:MAX_COMPARED]]
    left = max(0, len(old) - MAX_COMPARED) + max(0, len(new) - MAX_COMPARED)
    return [*parts, ("", f"… {left} more changed lines")] if left else parts


def _compare(before: list[str], after: list[str], start: int) -> list[Line]:
    """Two texts whose first and last lines differ; ``start`` lines are before them."""
    lines: list[Line] = []
    for group in difflib.SequenceMatcher(None, before, after).get_grouped_opcodes(AROUND):
        if lines:
            lines.append(("", f"… line {start + group[0][1] + 1}"))
        for tag, old_from, old_to, new_from, new_to in group:
            if tag == "equal":
                lines += _same(before[old_from:old_to])
                continue
            lines += [("del", f"- {line}") for line in before[old_from:old_to]]
            lines += [("add", f"+ {line}") for line in after[new_from:new_to]]
    return lines


def _same(lines: list[str]) -> list[Line]:
    return [("", f"  {line}") for line in lines]


def _equal(first: list[str], second: list[str]) -> int:
    """How many lines are equal from the beginning on."""
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count
