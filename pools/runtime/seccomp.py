"""The system calls that a container's processes may make: one profile of ours, on every engine.

``seccomp.json`` lists the allowed calls: those of the kernel's own tables, except calls that need a capability, reach
beyond a namespace, or are refused by a current engine's default. We have our own profile because engines differ: Docker
20.10 allows AF_VSOCK, which knows neither network namespaces nor the packet filter, and io_uring, whose operations no
filter sees. Calls that an engine or its libseccomp does not know by name are refused. See docs/adr/0043.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path

PATH = Path(__file__).with_name("seccomp.json")


@cache
def option() -> str:
    """The profile as an entry of the engine's ``SecurityOpt``."""
    return f"seccomp={json.dumps(json.loads(PATH.read_text()), separators=(',', ':'))}"


@cache
def version() -> str:
    """The version of the profile."""
    return hashlib.sha256(option().encode()).hexdigest()[:12]
