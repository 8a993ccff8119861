"""Processes of containers as seen by this host, for operations that the engine lacks."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from boilerhouse.process import pids

PROC = Path("/proc")


def kill_tree(pid: int, runtime_id: str) -> bool:
    """Kill the process and all its descendants, if it belongs to the container; returns whether that was possible.

    Each process is stopped before its children are read, so that it cannot start another.
    """
    if not pid or not _belongs_to(pid, runtime_id):
        return False
    return _kill_with_children(pid)


def _kill_with_children(pid: int) -> bool:
    tree, todo = [], [pid]
    try:
        while todo:
            process = todo.pop()
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                os.kill(process, signal.SIGSTOP)
                tree.append(process)
                todo += pids.children(process)
        for process in tree:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
    except PermissionError:
        return False
    return True


def kill_session(pid: int, process_1: int) -> bool:
    """As ``kill_tree``, for a process that is in the same container as this process 1."""
    try:
        if not pid or not process_1 or pid == process_1 or _cgroups(pid) != _cgroups(process_1):
            return False
    except OSError:
        return False
    return _kill_with_children(pid)


def _cgroups(pid: int) -> str:
    return (PROC / str(pid) / "cgroup").read_text()


def mount_info(pid: int, runtime_id: str) -> bytes | None:
    """The mounts in the process's namespace; None if it does not belong to the container or is not visible here."""
    if not pid or not _belongs_to(pid, runtime_id):
        return None
    try:
        return (PROC / str(pid) / "mountinfo").read_bytes()
    except OSError:
        return None


def status(pid: int, runtime_id: str) -> dict[str, str] | None:
    """Values of the kernel's status of the process; None if it does not belong to the container or is not visible
    here."""
    if not pid or not _belongs_to(pid, runtime_id):
        return None
    try:
        lines = (PROC / str(pid) / "status").read_text(errors="replace").splitlines()
    except OSError:
        return None
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _belongs_to(pid: int, runtime_id: str) -> bool:
    try:
        return runtime_id in _cgroups(pid)
    except OSError:
        return False
