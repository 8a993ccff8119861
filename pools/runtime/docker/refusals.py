"""Commands that an engine could not start: its error message becomes an exit code and a message, as in a shell."""

from __future__ import annotations

import posixpath
import re

from pools.runtime.base import Executed

NOT_EXECUTABLE, NOT_FOUND = 126, 127
MAX_NAME = 200
_BEGINS = "OCI runtime exec failed"
_INNER = re.compile(r"(?:unable to start container process|starting container process caused): (.*)", re.DOTALL)


def executed(text: str, command: tuple[str, ...], duration_ms: int) -> Executed | None:
    """The result for the engine's message about a command that did not start; None for any other message."""
    if not text.lstrip().startswith(_BEGINS):
        return None
    code, why = _meaning(text, command[0])
    words = f"{_shown(command[0])}: {why}"
    return Executed(code, b"", f"{words}\n".encode(errors="replace"), duration_ms, refusal=words)


_AT_EXECVE = re.compile(r"exec (.+): (no such file or directory|exec format error|permission denied)\n\Z")


def at_execve(result: Executed, command: tuple[str, ...]) -> Executed | None:
    """The same if the engine's helper had started already: it prints the kernel's message and ends with 1 or 255."""
    match = _AT_EXECVE.match(result.stderr.decode(errors="replace")) if not result.stdout else None
    if (
        match is None
        or result.exit_code not in (1, 126, 127, 255)
        or posixpath.basename(match[1]) != posixpath.basename(command[0])
    ):
        return None
    code, why = _meaning(match[2], "")
    words = f"{_shown(command[0])}: {why}"
    return Executed(code, b"", f"{words}\n".encode(errors="replace"), result.duration_ms, refusal=words)


def _shown(name: str) -> str:
    line = "".join(char if char.isprintable() else "?" for char in name[:MAX_NAME])
    return line or '""'


def _meaning(text: str, name: str) -> tuple[int, str]:
    inner = text.replace(name, "") if name else text  # text in the name itself must not decide the result
    if "executable file not found" in inner:
        return NOT_FOUND, "command not found"
    if "chdir to cwd" in inner:
        return NOT_EXECUTABLE, "the container's user cannot enter the working directory"
    if "no such file or directory" in inner:
        return NOT_FOUND, "no such file, or its interpreter does not exist"
    if "is a directory" in inner:
        return NOT_EXECUTABLE, "is a directory"
    if "exec format error" in inner:
        return NOT_EXECUTABLE, "is not a program that this machine can run"
    if "permission denied" in inner:
        return NOT_EXECUTABLE, "permission denied: the container's user may not execute it"
    match = _INNER.search(text)
    rest = " ".join((match[1] if match else text).removesuffix(": unknown").split())
    return NOT_EXECUTABLE, f"could not be started: {rest[:300]}"
