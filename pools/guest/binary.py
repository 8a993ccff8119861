"""The program of the guest agent on this host."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import structlog
from django.conf import settings

from boilerhouse.core import deployment
from pools.spec import WorkloadSpec

log = structlog.get_logger(__name__)

VERSION_S = 10
_works: dict[Path, bool] = {}
"""Copies that this process has tried → whether this machine can run them from there."""


def agent_for(spec: WorkloadSpec) -> Path | None:
    """The program for a new container of this workload; None: it gets the engine's init, or its own.

    The path contains the digest of its content, which was compared just now. A newer program has another path:
    containers keep the one that they were started with.
    """
    return installed() if spec.init else None


def installed() -> Path | None:
    """The program in the data directory, where the engine sees it, copied there if necessary.

    None if there is none, or if it cannot run from there.
    """
    try:
        content = Path(settings.BOILERHOUSE_GUEST_AGENT or os.devnull).read_bytes()
    except FileNotFoundError:
        return None
    if not content:
        return None
    digest = hashlib.sha256(content).hexdigest()
    path = deployment.data_dir() / "guest" / digest
    if not _is_whole(path, digest):
        _copy(content, path)
    if path not in _works:
        _works[path] = _can_run(path)
    return path if _works[path] else None


def _is_whole(path: Path, digest: str) -> bool:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == digest
    except FileNotFoundError:
        return False


def _copy(content: bytes, path: Path) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}")
    with draft.open("wb") as file:
        os.fchmod(file.fileno(), 0o555)
        file.write(content)
    draft.rename(path)


def _can_run(path: Path) -> bool:
    """Whether it runs from there: it may be for another machine, or the file system may forbid programs."""
    try:
        result = subprocess.run([path, "version"], capture_output=True, text=True, timeout=VERSION_S, check=False)
        problem = "" if result.returncode == 0 else f"exit code {result.returncode}"
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    if problem:
        log.warning("guest agent cannot run, commands go by the engine", path=str(path), detail=problem)
    return not problem
