"""Seals the directory of a new container's socket: from then on nothing in the container reaches it."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from uuid import UUID

import structlog

from pools.guest.connections import SEALED, NoAgent, open_socket, peer
from pools.guest.paths import SOCKET, run_dir

log = structlog.get_logger(__name__)

LISTENS_S = 2.0
"""How long a started agent may take until it listens."""


def seal(container_id: UUID, process_1: int) -> bool:
    """Close the directory to the container, and check that its process 1 listens there; whether it does.

    ``process_1`` is its pid as the engine reports it. Without an agent there, callers use the engine. Can be repeated.
    """
    return seal_at(run_dir(container_id), process_1)


def seal_at(directory: Path, process_1: int) -> bool:
    try:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False  # it was created without an agent
    try:
        _wait_for_socket(handle)
        os.fchown(handle, SEALED, SEALED)
        os.fchmod(handle, 0o700)
        return _is_own(handle, directory, process_1)
    finally:
        os.close(handle)


def _wait_for_socket(directory: int) -> None:
    until, wait = time.monotonic() + LISTENS_S, 0.0005
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            os.stat(SOCKET, dir_fd=directory, follow_symlinks=False)
            return
        time.sleep(wait)
        wait = min(wait * 2, 0.02)


def _is_own(handle: int, directory: Path, process_1: int) -> bool:
    try:
        with open_socket(directory, is_sealed=True) as connection:
            pid, _ = peer(connection)
    except NoAgent as error:
        log.warning("guest agent does not listen, commands go by the engine", detail=str(error))
        return False
    if pid == process_1:
        return True
    log.warning("another process listens instead of the guest agent", expected=process_1, actual=pid)
    with contextlib.suppress(OSError):
        os.unlink(SOCKET, dir_fd=handle)
    return False
