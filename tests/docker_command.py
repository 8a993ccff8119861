"""The Docker command line, for operations that the product does not use."""

from __future__ import annotations

import subprocess
from typing import Any


def docker(*arguments: str, timeout: float = 60, **options: Any) -> str:
    """What the command prints. It must succeed."""
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, check=True, timeout=timeout, **options
    )
    return done.stdout
