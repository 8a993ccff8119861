"""Which calls of the kernel a container's processes may make: one profile of ours, on every engine.

``seccomp.json`` names what is allowed: the calls of the kernel's own tables, without those that need a capability,
reach beyond a namespace, or are refused by a current engine's default. It is ours because engines differ: Docker 20.10
lets AF_VSOCK through, which knows neither network namespaces nor the packet filter, and io_uring, whose calls no filter
sees. What an engine or its libseccomp does not know by name, it refuses. See docs/adr/0043.
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
    """Another one for each profile."""
    return hashlib.sha256(option().encode()).hexdigest()[:12]
