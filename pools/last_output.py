"""How a container ended, and the lines of its output that explain why."""

from __future__ import annotations

import re
import signal
from itertools import pairwise

from boilerhouse.core import text
from boilerhouse.core.errors import BoilerhouseError
from pools.runtime.base import ContainerRuntime, Observed

LOOK_AT_LINES, LOOK_AT_BYTES = 5000, 1 << 20
"""A dump of many threads is long, and its beginning matters."""
FIRST, TOLD, LAST = 2, 6, 3
"""The lines that are kept: the first, those that name an error, the last."""
MAX_LINE = 240
OOM = "it exceeded its memory limit (resources.memoryMb)"

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_FRAME = re.compile(r"\s+at |\s*File \"|\s+from |\s*\.\.\. \d+ more|goroutine \d+ |\s+\S+\.go:\d+")
_TELLS = re.compile(
    r"(?:Error|Exception|Fault|Failure|ERROR)\b|\berror\b|\bfatal\b|\bpanic"
    r"|\bCaused by\b|\bUnhandled\b|\bUncaught\b|\bSegmentation fault\b|\bFATAL\b",
)
"""No pattern has nested repetition: a tenant chooses the lines, and one of a MiB must not take long."""


def code_words(exit_code: int | None, *, is_oom: bool = False) -> str:
    """``exit code 139 (SIGSEGV)``; codes from 126 on may come from a shell or stand for a signal."""
    if exit_code is None:
        return "an unknown exit code"
    name = signal_name(exit_code)
    words = f"exit code {exit_code} ({name})" if name else f"exit code {exit_code}"
    return f"{words}: {OOM}" if is_oom else words


def signal_name(exit_code: int | None) -> str:
    """``SIGKILL`` for 137; empty if the code does not stand for a signal."""
    try:
        return signal.Signals((exit_code or 0) - 128).name
    except ValueError:
        return ""


def ended(observed: Observed | None) -> str:
    """How a stopped container ended, as ``exit code …``."""
    code = observed.exit_code if observed else None
    is_oom = observed is not None and observed.is_oom_killed and code == 128 + signal.SIGKILL
    words = code_words(code, is_oom=is_oom)
    if observed is not None and observed.is_oom_killed and not is_oom:
        return f"{words}; before that, one of its processes was killed, because {OOM}"
    return words


def of(runtime: ContainerRuntime, name: str) -> str:
    """The lines of the container's output that explain its end; empty without output or container."""
    try:
        errors = runtime.logs(name, LOOK_AT_LINES, limit_bytes=LOOK_AT_BYTES, errors_only=True)
        if errors.strip() and _tells(lines_of(errors)):
            return pick(errors)
        everything = runtime.logs(name, LOOK_AT_LINES, limit_bytes=LOOK_AT_BYTES)
    except BoilerhouseError:
        return ""
    return pick(everything if _tells(lines_of(everything)) or not errors.strip() else errors)


def pick(output: bytes) -> str:
    """The first and last lines and those that name an error, in order, with … for omitted lines."""
    lines = lines_of(output)
    places_kept = {
        *range(min(FIRST, len(lines))),
        *range(max(0, len(lines) - LAST), len(lines)),
        *_tells(lines)[-TOLD:],
    }
    places = sorted(places_kept)
    lines_shown = [_shortened(lines[place]) for place in places[:1]]
    for before, place in pairwise(places):
        lines_shown += ["…"] * (place - before > 1) + [_shortened(lines[place])]
    return "\n".join(lines_shown)


def lines_of(output: bytes) -> list[str]:
    """The non-empty lines, made printable."""
    lines = text.lines(_ESCAPES.sub("", output.decode(errors="replace")))
    printable = ("".join(c for c in line.replace("\r", " ") if c.isprintable() or c == "\t").rstrip() for line in lines)
    return [line for line in printable if line]


def line_of(output: bytes, most: int) -> str:
    """The output as one printable line of at most ``most`` characters."""
    return " ".join(lines_of(output))[:most]


def _tells(lines: list[str]) -> list[int]:
    return [place for place, line in enumerate(lines) if _TELLS.search(line) and not _FRAME.match(line)]


def _shortened(line: str) -> str:
    return line if len(line) <= MAX_LINE else f"{line[:MAX_LINE]}…"
