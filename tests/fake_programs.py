"""Programs of the fake engine's images: they print and exit as those of busybox do."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

NOT_EXECUTABLE, NOT_FOUND = 126, 127


@dataclass(frozen=True)
class Ran:
    """What a program did. One that never ends has infinitely many ``seconds``."""

    exit_code: int = 0
    out: bytes = b""
    err: bytes = b""
    seconds: float = 0.0
    refusal: str = ""
    """Why it never began."""


Files = Mapping[str, bytes]
Program = Callable[[tuple[str, ...], bytes, Files], Ran]


def _cat(paths: tuple[str, ...], stdin: bytes, files: Files) -> Ran:
    if not paths:
        return Ran(out=stdin)
    missing = [path for path in paths if path not in files]
    words = "".join(f"cat: can't open '{path}': No such file or directory\n" for path in missing)
    return Ran(bool(missing), b"".join(files[path] for path in paths if path in files), words.encode())


def _seq(arguments: tuple[str, ...], stdin: bytes, files: Files) -> Ran:
    return Ran(out="".join(f"{number}\n" for number in range(1, int(arguments[0]) + 1)).encode())


PROGRAMS: dict[str, Program] = {
    "true": lambda arguments, stdin, files: Ran(),
    "false": lambda arguments, stdin, files: Ran(1),
    "echo": lambda arguments, stdin, files: Ran(out=f"{' '.join(arguments)}\n".encode()),
    "cat": _cat,
    "seq": _seq,
    "sleep": lambda arguments, stdin, files: Ran(seconds=float(arguments[0])),
    "yes": lambda arguments, stdin, files: Ran(out=b"y\n" * (1 << 20), seconds=math.inf),
}


def run(command: tuple[str, ...], stdin: bytes, files: Files) -> Ran:
    """What the command comes to; one that cannot begin ends as in a shell."""
    name = command[0]
    if program := PROGRAMS.get(name):
        return program(command[1:], stdin, files)
    if name in files or any(path.startswith(f"{name.rstrip('/')}/") for path in files):
        return _refused(name, NOT_EXECUTABLE, "permission denied")
    return _refused(name, NOT_FOUND, "command not found")


def _refused(name: str, exit_code: int, why: str) -> Ran:
    words = f"{name}: {why}"
    return Ran(exit_code, err=f"{words}\n".encode(), refusal=words)
