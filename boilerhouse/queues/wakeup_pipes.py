"""Wake-up pipes: a process that enqueues a task wakes the processes of this machine that wait for it.

A wake-up pipe is a named pipe in the data directory, one for each waiting process. It is only a hint: waiting processes
also poll from time to time, so a lost wake-up, or work from another machine, only costs some time.
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


class WakeupPipe:
    """Registered for each of the queues when this returns; no later wake-up is missed."""

    def __init__(self, *queues: str) -> None:
        _directory().mkdir(mode=0o700, parents=True, exist_ok=True)
        self._pipes = [_hang_up(queue) for queue in queues]
        self._poll = select.poll()
        for pipe in self._pipes:
            self._poll.register(pipe, select.POLLIN)

    def silence(self) -> None:
        """Discard pending wake-ups, before polling for work."""
        for pipe in self._pipes:
            with contextlib.suppress(BlockingIOError):
                while os.read(pipe, 4096):
                    pass

    def wait(self, seconds: float) -> bool:
        """Wait for a wake-up, at most that long. Returns whether there was one."""
        return bool(self._poll.poll(seconds * 1000))

    def notify(self) -> None:
        """Wake the waiting process, from another of its threads."""
        with contextlib.suppress(BlockingIOError):  # full: a wake-up is pending anyway
            os.write(self._pipes[0], b".")


def _hang_up(queue: str) -> int:
    own = secrets.token_hex(6)
    draft = _directory() / f".{queue}.{own}"
    os.mkfifo(draft, 0o600)
    # Open for writing too; otherwise the pipe reads as closed whenever no process writes to it.
    pipe = os.open(draft, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    draft.rename(_directory() / f"{queue}.{own}")  # no writer finds it without a reader and takes it for dead
    return pipe


def notify(queue: str) -> None:
    """Wake all processes of this machine that wait for this queue, and delete pipes of processes that have ended."""
    for path in _directory().glob(f"{queue}.*"):
        try:
            pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no process reads it any more
                path.unlink(missing_ok=True)
            continue
        with contextlib.suppress(BlockingIOError, BrokenPipeError):  # full: a wake-up is pending anyway
            os.write(pipe, b".")
        os.close(pipe)
