"""Bells: who puts work on a queue wakes those on this machine who wait for it.

A bell is a named pipe in the data directory, one for each process that waits. It is a hint: whoever waits also looks
by itself from time to time, so that a bell that is lost, or work from another machine, costs some time and no more.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import select
from pathlib import Path

from boilerhouse.core.deployment import data_dir


def _directory() -> Path:
    return data_dir() / "bells"


class Bell:
    """Hung up for each of the queues when this returns; a ring from then on is not missed."""

    def __init__(self, *queues: str) -> None:
        _directory().mkdir(mode=0o700, parents=True, exist_ok=True)
        self._pipes = [_hang_up(queue) for queue in queues]
        self._poll = select.poll()
        for pipe in self._pipes:
            self._poll.register(pipe, select.POLLIN)

    def silence(self) -> None:
        """Forget rings; looking for work comes after this."""
        for pipe in self._pipes:
            with contextlib.suppress(BlockingIOError):
                while os.read(pipe, 4096):
                    pass

    def wait(self, seconds: float) -> None:
        """Until it has rung, at most that long."""
        self._poll.poll(seconds * 1000)

    def ring(self) -> None:
        """Wake who waits here, from another thread."""
        with contextlib.suppress(BlockingIOError):  # full: it rings anyway
            os.write(self._pipes[0], b".")


def _hang_up(queue: str) -> int:
    own = secrets.token_hex(6)
    draft = _directory() / f".{queue}.{own}"
    os.mkfifo(draft, 0o600)
    # For writing, too: otherwise it would read as ended whenever nobody has it open.
    pipe = os.open(draft, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    draft.rename(_directory() / f"{queue}.{own}")  # no ringer finds it without a reader, and takes it for dead
    return pipe


def ring(queue: str) -> None:
    """Wake all who wait for this queue on this machine; takes away bells of processes that have ended."""
    for path in _directory().glob(f"{queue}.*"):
        try:
            pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nobody reads it any more
                path.unlink(missing_ok=True)
            continue
        with contextlib.suppress(BlockingIOError, BrokenPipeError):  # full: it rings anyway
            os.write(pipe, b".")
        os.close(pipe)
