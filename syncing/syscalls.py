"""System calls that no process in rclone's sandbox may make.

A save's rclone may read files that their owner made unreadable (CAP_DAC_READ_SEARCH). The same capability would open
any file of the file system by its handle, bypassing mounts and directories, so exactly that call is refused.
"""

from __future__ import annotations

import os
import platform
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

_ARCHITECTURES = {"x86_64": (0xC000003E, (303, 304)), "aarch64": (0xC00000B7, (264, 265))}
"""By machine: the kernel's architecture number, and the numbers of name_to_handle_at and open_by_handle_at."""
_X32 = 0x40000000
"""Calls from here on are the same ones under other numbers."""
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050001  # EPERM


@contextmanager
def refused() -> Iterator[int]:
    """A descriptor with the filter, for bwrap's ``--seccomp`` once."""
    read, write = os.pipe2(os.O_CLOEXEC)
    try:
        with os.fdopen(write, "wb") as file:
            file.write(_filter(platform.machine()))
        yield read
    finally:
        os.close(read)


@cache
def _filter(machine: str) -> bytes:
    """The filter as a kernel program (seccomp, classic BPF). Raises KeyError for an unknown machine."""
    architecture, calls = _ARCHITECTURES[machine]
    checks = [(_EQUAL, call) for call in calls] + [(_AT_LEAST, _X32)]
    program = [(_LOAD, 0, 0, 4), (_EQUAL, 0, len(checks) + 2, architecture), (_LOAD, 0, 0, 0)]
    program += [(code, len(checks) - number, 0, value) for number, (code, value) in enumerate(checks)]
    program += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
