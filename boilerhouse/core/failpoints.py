"""Named places where a test may end this process, as a power cut would.

Armed only by a file of that name in the directory that BOILERHOUSE_FAILPOINTS names; without the variable, which no
deployment sets, ``reach`` does nothing. Whoever removes the file is killed, so each arming kills one process.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

_directory = os.environ.get("BOILERHOUSE_FAILPOINTS", "")
hooks: dict[str, Callable[[], None]] = {}
"""For tests within one process: called instead of killing it."""


def reach(name: str) -> None:
    """Say that the code is about to pass the place called ``name``."""
    if hook := hooks.get(name):
        hook()
    if not _directory:
        return
    try:
        (Path(_directory) / name).unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
