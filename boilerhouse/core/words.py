"""Names of programs as words for people."""

from __future__ import annotations

import re


def spaced(name: str) -> str:
    """``clonedFiles``, ``cloned_files`` and ``cloned-files`` as ``cloned files``, without a unit of time at the end."""
    name = re.sub(r"(_ms|Ms|_s)$", "", name)
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r" \1", name).replace("_", " ").replace("-", " ").lower()
