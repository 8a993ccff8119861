"""How many files the engine lets a container's process open at most.

The engine does not say it. What it starts inherits its own hard limit, and gets a higher one only if the engine may
raise limits (CAP_SYS_RESOURCE), which it may not inside most containers.
"""

from __future__ import annotations

import re
import socket
import struct
from contextlib import suppress
from pathlib import Path

_SYS_RESOURCE = 1 << 24
_CONNECT_S = 2.0


def limit(base_url: str) -> int | None:
    """The engine's own limit, None where it may raise it or this process cannot see the engine's."""
    with suppress(OSError):
        if pid := _pid_behind(base_url):
            return _limit_of(Path(f"/proc/{pid}"))
    return None


def _pid_behind(base_url: str) -> int:
    """The process that listens at the engine's socket; 0 where it is in another namespace, or on another machine."""
    if not base_url.startswith("unix://"):
        return 0
    with socket.socket(socket.AF_UNIX) as engine:
        engine.settimeout(_CONNECT_S)
        engine.connect("/" + base_url.removeprefix("unix://").lstrip("/"))
        peer = engine.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid: int = struct.unpack("3i", peer)[0]
    return pid


def _limit_of(process: Path) -> int | None:
    if (process / "comm").read_text().strip() != "dockerd":  # a proxy before it
        return None
    may = re.search(r"^CapEff:\s*([0-9a-f]+)$", (process / "status").read_text(), re.MULTILINE)
    hard = re.search(r"^Max open files +\S+ +(\d+)", (process / "limits").read_text(), re.MULTILINE)
    if may is None or hard is None or int(may[1], 16) & _SYS_RESOURCE:
        return None
    return int(hard[1])
