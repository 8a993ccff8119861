"""Limits long work by the time without progress instead of the total time.

Code that does a part of it calls ``moved``; a caller that waits for it listens with ``reporting_to``. Loops over items
of which a tenant can create any number call ``step`` for each item, so that the caller can end them, and so that they
give way to brief work.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from django.conf import settings

from boilerhouse.core.errors import Failed
from boilerhouse.process import giving_way

REPORT_EVERY_S = 1.0
_LOOK_EVERY_S = 0.5
_listener: ContextVar[Callable[[], None] | None] = ContextVar("listener", default=None)
_look: ContextVar[Callable[[], None] | None] = ContextVar("look", default=None)


class Stalled(Failed):
    """There was no progress for BOILERHOUSE_TRANSFER_STALL_S."""

    code = "stalled"


class StallTimer:
    """How long there has been no progress."""

    def __init__(self) -> None:
        self.bound_s = float(settings.BOILERHOUSE_TRANSFER_STALL_S)
        self._moved_at = time.monotonic()

    def moved(self) -> None:
        self._moved_at = time.monotonic()
        moved()

    @property
    def is_too_long(self) -> bool:
        return time.monotonic() - self._moved_at > self.bound_s


def moved() -> None:
    """Report progress of this thread's work."""
    if (listener := _listener.get()) is not None:
        listener()


def step() -> None:
    """The same for one of many items, which gives way to brief work. Raises the error of ``while_going`` if this
    thread's work is to end."""
    moved()
    if (look := _look.get()) is not None:
        look()
    giving_way.give_way()


@contextmanager
def while_going(keep_going: Callable[[], bool], error: type[Exception]) -> Iterator[None]:
    """Within the block, ``step`` raises ``error`` when ``keep_going`` returns False; it is called twice a second."""
    checked_at = time.monotonic()

    def look() -> None:
        nonlocal checked_at
        if time.monotonic() - checked_at < _LOOK_EVERY_S:
            return
        if not keep_going():
            raise error
        checked_at = time.monotonic()

    token = _look.set(look)
    try:
        yield
    finally:
        _look.reset(token)


@contextmanager
def quietly() -> Iterator[None]:
    """Within the block, ``step`` and ``moved`` do nothing: a container is frozen meanwhile, so there is no time for
    queries or pauses."""
    looking, listening = _look.set(None), _listener.set(None)
    try:
        with giving_way.at_once():
            yield
    finally:
        _look.reset(looking)
        _listener.reset(listening)


@contextmanager
def reporting_to(listener: Callable[[], None]) -> Iterator[None]:
    """Within the block, ``listener`` is called on progress of this thread's work, at most once a second."""
    reported_at = -REPORT_EVERY_S

    def hear() -> None:
        nonlocal reported_at
        if time.monotonic() - reported_at >= REPORT_EVERY_S:
            reported_at = time.monotonic()
            listener()

    token = _listener.set(hear)
    try:
        yield
    finally:
        _listener.reset(token)


def bytes_read(pid: int) -> int:
    """Bytes that the process has read so far from files, pipes and the network; 0 after it has ended."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/io").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "rchar":
                return int(value)
    return 0


def waits_for_pipe(pid: int) -> bool:
    """Whether a thread of the process is blocked in opening a named pipe that no other process has open."""
    with contextlib.suppress(OSError):
        return any(_wait_channel(thread) == "wait_for_partner" for thread in Path(f"/proc/{pid}/task").iterdir())
    return False


def _wait_channel(thread: Path) -> str:
    with contextlib.suppress(OSError):
        return (thread / "wchan").read_text()
    return ""


def run(command: list[str]) -> None:
    """Run a program of this host until it ends, however long that takes.

    Raises Stalled if it neither uses the processor nor reads or writes for the limit, and Failed if it fails.
    """
    still = StallTimer()
    done: tuple[str, ...] = ()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=output)
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=_LOOK_EVERY_S)
                    break
                before, done = done, _work_done(process.pid)
                if done != before:
                    still.moved()
                if still.is_too_long:
                    raise Stalled(f"{command[0]} has made no progress for {still.bound_s:.0f} s.")
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()
        if process.returncode != 0:
            output.seek(0)
            words = output.read(400).decode(errors="replace").strip()
            raise Failed(f"{command[0]} failed with exit code {process.returncode}: {words}")


def _work_done(pid: int) -> tuple[str, ...]:
    """Processor time, reads and writes of a process so far."""
    with contextlib.suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (*stat[11:13], Path(f"/proc/{pid}/io").read_text())
    return ()
