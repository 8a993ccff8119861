"""Processes of containers, as this host sees them; for what the engine has no verb for."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from boilerhouse.process import processes

PROC = Path("/proc")


def kill_tree(pid: int, runtime_id: str) -> bool:
    """Kill the process and all its descendants, if it is one of the container's; whether it could be.

    Each is stopped before its children are read, so that none can start another meanwhile.
    """
    if not pid or not _belongs_to(pid, runtime_id):
        return False
    found, todo = [], [pid]
    try:
        while todo:
            one = todo.pop()
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                os.kill(one, signal.SIGSTOP)
                found.append(one)
                todo += processes.children(one)
        for one in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
    except PermissionError:
        return False
    return True


def mount_info(pid: int, runtime_id: str) -> bytes | None:
    """What is mounted where the process runs; None if it is not one of the container's, or not seen from here."""
    if not pid or not _belongs_to(pid, runtime_id):
        return None
    try:
        return (PROC / str(pid) / "mountinfo").read_bytes()
    except OSError:
        return None


def status(pid: int, runtime_id: str) -> dict[str, str] | None:
    """What the kernel says of the process, by its own words; None if it is not one of the container's, or not seen."""
    if not pid or not _belongs_to(pid, runtime_id):
        return None
    try:
        lines = (PROC / str(pid) / "status").read_text(errors="replace").splitlines()
    except OSError:
        return None
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _belongs_to(pid: int, runtime_id: str) -> bool:
    try:
        return runtime_id in (PROC / str(pid) / "cgroup").read_text()
    except OSError:
        return False
