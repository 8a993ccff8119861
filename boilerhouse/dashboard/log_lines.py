"""Lines of a container's log as pages show them: their times, their levels, and which of them are asked for.

``static/logs.js`` does the same in the browser for lines that arrive later.
"""

from __future__ import annotations

import bisect
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from boilerhouse.core import text

SHOWN = 500
"""The maximum number of lines in a page."""
_HEAD = 400
"""A level stands at the beginning of a line, and a tenant may write a line of a megabyte."""
_MAX_JSON = 64 * 1024
_ERROR = frozenset({"error", "err", "fatal", "critical", "crit", "panic", "severe", "alert", "emerg", "emergency"})
_WARN = frozenset({"warn", "warning"})
_OTHER = frozenset({"info", "information", "notice", "debug", "trace", "verbose", "log"})
_LEVELS = "|".join(sorted(_ERROR | _WARN | _OTHER, key=len, reverse=True))
_FIELDS = ("level", "severity", "lvl", "levelname", "loglevel", "log.level")
_LOGFMT = re.compile(r"(?:^|\s)(?:level|lvl|severity)=\"?(\w+)", re.IGNORECASE)
_MARKED = re.compile(rf"[\[<|]\s*({_LEVELS})\s*[\]>|]|^\s*({_LEVELS})\s*[:!\]]", re.IGNORECASE)
_CAPITALS = re.compile(rf"\b({_LEVELS.upper()})\b")
_KLOG = re.compile(r"^([IWEF])\d{4} \d\d:\d\d")
_RAISED = re.compile(r"Traceback \(most|\b[A-Z]\w*(?:Error|Exception)\b")
_SAYS_ERROR = re.compile(
    r"\b(?:fatal|panic|unhandled|uncaught|segmentation fault)\b|(?<!no )(?<!0 )\berror\b", re.IGNORECASE
)
_SAYS_WARN = re.compile(r"\bwarn(?:ing)?\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class LogLine:
    at: str
    """RFC 3339 with nanoseconds, which distinguishes lines."""
    text: str
    tone: str
    """``error``, ``warn`` or empty."""

    @property
    def clock(self) -> str:
        return self.at[11:23]


def log_lines(data: bytes) -> list[LogLine]:
    """The engine's lines, each of which begins with a timestamp; other line breaks do not count."""
    lines = []
    for line in text.lines(data.decode(errors="replace")):
        at, _, words = line.partition(" ")
        lines.append(LogLine(text.one_line(at), text.printable(words), tone_of(words)))
    return lines


def tone_of(line: str) -> str:
    """The level that the line's structure names; only without one, what its words say."""
    head = line[:_HEAD]
    for level in (_of_document(line), _of_prefix(head)):
        if level:
            return _tone(level)
    if _RAISED.search(head) or _SAYS_ERROR.search(head):
        return "error"
    return "warn" if _SAYS_WARN.search(head) else ""


def _tone(level: str) -> str:
    return "error" if level in _ERROR else "warn" if level in _WARN else ""


def _of_document(line: str) -> str:
    """The level of a line that is a JSON object; numbers are those of pino and bunyan."""
    if not line.startswith("{") or len(line) > _MAX_JSON:
        return ""
    document: Any = None
    with suppress(ValueError, RecursionError):
        document = json.loads(line)
    if not isinstance(document, dict):
        return ""
    value = next((document[name] for name in _FIELDS if document.get(name) is not None), "")
    if isinstance(value, int | float):
        return "error" if value >= 50 else "warn" if value >= 40 else "info"
    return str(value)[:20].lower()


def _of_prefix(head: str) -> str:
    if match := _KLOG.match(head):
        return {"E": "error", "F": "fatal", "W": "warn"}.get(match[1], "info")
    for pattern in (_LOGFMT, _MARKED, _CAPITALS):
        if match := pattern.search(head[:120]):
            level = next(filter(None, match.groups()), "").lower()
            if level in _ERROR | _WARN | _OTHER:
                return level
    return ""


@dataclass(frozen=True, slots=True)
class LogSearch:
    """Which lines are asked for. Plain text: a regular expression is applied only by the browser of whoever wrote it,
    because a tenant chooses the lines."""

    words: str = ""
    without: str = ""
    level: str = ""
    at: str = ""
    """The time of the line that a link names."""

    @classmethod
    def of(cls, query: Any) -> LogSearch:
        def value(name: str) -> str:
            return str(query.get(name, "")).replace("\0", "")[:200]

        level = value("level")
        return cls(value("q"), value("without"), level if level in ("warn", "error") else "", value("line")[:40])

    @property
    def is_on(self) -> bool:
        return bool(self.words or self.without or self.level)

    def fits(self, line: LogLine) -> bool:
        lowered = line.text.lower()
        tones = {"warn": ("warn", "error"), "error": ("error",)}.get(self.level)
        return (
            self.words.lower() in lowered
            and not (self.without and self.without.lower() in lowered)
            and (tones is None or line.tone in tones)
        )


def choose(lines: Sequence[LogLine], search: LogSearch) -> list[LogLine]:
    """The last lines that fit, or those around the line of a link."""
    if search.at:
        place = bisect.bisect_left([line.at for line in lines], search.at)
        first = max(0, min(place - SHOWN // 2, len(lines) - SHOWN))
        return list(lines[first : first + SHOWN])
    return [line for line in lines if search.fits(line)][-SHOWN:]
