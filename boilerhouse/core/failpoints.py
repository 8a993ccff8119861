"""Named points in the code at which a test may end this process, as a power failure would.

A failpoint is armed by a file of its name in the directory that BOILERHOUSE_FAILPOINTS names. Without the variable,
which no deployment sets, ``reach`` does nothing. The process that removes the file is killed, so each armed failpoint
kills one process.
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
    """Mark that the code is about to pass the point ``name``."""
    if hook := hooks.get(name):
        hook()
    if not _directory:
        return
    try:
        (Path(_directory) / name).unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
