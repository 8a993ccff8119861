"""Helper processes that access directories, and that can be abandoned if a mount hangs (``local_program``).

Each mount has its own, so processes that wait for one mount do not reduce those of another.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog

from syncing.errors import SinkStumbled, SinkUnreachable
from syncing.sinks import deadlines

log = structlog.get_logger(__name__)

PROGRAM = Path(__file__).with_name("local_program.py")
AT_ONCE = 8
"""Concurrent helper processes per mount."""
KEPT = 2
"""Idle ones among them."""
MOST_STUCK = 4
"""The maximum of processes stuck in a mount, even after being killed."""
ENDS_S = 0.5
"""A killed process has ended by then, unless the kernel waits for the mount."""
CHUNK = 1 << 20


class Lost(Exception):
    """The process ended without an answer."""


class Hands:
    """The helper processes of one mount."""

    def __init__(self, mount: str) -> None:
        self._mount = mount
        self._changed = threading.Condition()
        self._idle: list[_Process] = []
        self._busy = 0
        self._stuck: list[subprocess.Popen[bytes]] = []

    def ask(
        self, question: dict[str, Any], body: bytes, silent_s: float, until: float
    ) -> Iterator[tuple[dict[str, Any], bytes]]:
        """The lines of the answer, and the body after the last one; closing the iterator ends the process.

        ``silent_s`` is how long the directory may be silent, ``until`` the deadline of the whole answer. Raises
        SinkStumbled if it is late, SinkUnreachable if others already wait for it in vain.
        """
        began = time.monotonic()
        line = json.dumps({**question, "bytes": len(body)}).encode() + b"\n" + body
        with self._place(until) as process:
            try:
                process.send(line, until)
                while True:
                    reply, content = process.read(min(until, time.monotonic() + silent_s))
                    process.is_whole = "more" not in reply
                    yield reply, content
                    if process.is_whole:
                        return
            except TimeoutError:
                deadlines.check()  # says how long who asks would have waited
                raise SinkStumbled(f"The sink has not answered within {time.monotonic() - began:.3g} s.") from None

    @contextmanager
    def _place(self, until: float) -> Iterator[_Process]:
        with self._changed:
            self._stuck = [item for item in self._stuck if item.poll() is None]
            if len(self._stuck) >= MOST_STUCK:
                raise SinkUnreachable(
                    f"The sink's directory does not answer: {self._mount} hangs, and holds {len(self._stuck)} processes"
                    f" that asked it."
                )
            if not self._changed.wait_for(lambda: self._busy < AT_ONCE, max(0.0, until - time.monotonic())):
                deadlines.check()
                raise SinkStumbled(f"The sink has not answered {AT_ONCE} earlier requests.")
            self._busy += 1
            process = self._idle.pop() if self._idle else None
        try:
            process = process if process is not None and process.is_alive else _Process()
            process.is_whole = False
            try:
                yield process
            finally:
                self._put_back(process)
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify()

    def _put_back(self, process: _Process) -> None:
        with self._changed:
            if process.is_whole and len(self._idle) < KEPT:
                self._idle.append(process)
                return
            if not process.is_ended():
                log.warning("helper process abandoned", mount=self._mount, pid=process.running.pid)
                self._stuck.append(process.running)


class _Process:
    """One helper process; it inherits no descriptors, because it may outlive us."""

    def __init__(self) -> None:
        self.running = subprocess.Popen(
            [sys.executable, "-I", "-S", str(PROGRAM)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={}, cwd="/", bufsize=0,
        )  # fmt: skip
        assert self.running.stdin
        assert self.running.stdout
        self._to, self._from = self.running.stdin.fileno(), self.running.stdout.fileno()
        os.set_blocking(self._to, False)
        self._read = bytearray()
        self.is_whole = False

    @property
    def is_alive(self) -> bool:
        return self.running.poll() is None

    def is_ended(self) -> bool:
        """Kill it; returns whether it ended promptly."""
        self.running.kill()
        for pipe in (self.running.stdin, self.running.stdout):
            if pipe is not None:
                pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.running.wait(ENDS_S)
        return self.running.returncode is not None

    def send(self, line: bytes, until: float) -> None:
        """Raises TimeoutError; Lost."""
        unsent = memoryview(line)
        while unsent:
            self._wait(self._to, select.POLLOUT, until)
            try:
                unsent = unsent[os.write(self._to, unsent[:CHUNK]) :]
            except BrokenPipeError:
                raise Lost from None

    def read(self, until: float) -> tuple[dict[str, Any], bytes]:
        """The next line, and the body after it. Raises TimeoutError; Lost."""
        while (end := self._read.find(b"\n")) < 0:
            self._more(until)
        reply: dict[str, Any] = json.loads(self._read[:end])
        del self._read[: end + 1]
        size = reply.get("bytes", 0)
        while len(self._read) < size:
            self._more(until)
        content = bytes(self._read[:size])
        del self._read[:size]
        return reply, content

    def _more(self, until: float) -> None:
        self._wait(self._from, select.POLLIN, until)
        chunk = os.read(self._from, CHUNK)
        if not chunk:
            raise Lost
        self._read += chunk

    def _wait(self, pipe: int, event: int, until: float) -> None:
        poll = select.poll()
        poll.register(pipe, event)
        if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
            raise TimeoutError


_hands: dict[str, Hands] = {}
_finding = threading.Lock()


def of(mount: str) -> Hands:
    with _finding:
        return _hands.setdefault(mount, Hands(mount))


def _begin_anew() -> None:
    """A fork's parent goes on with its processes; the locks may be held by threads that are not here."""
    global _finding
    _finding = threading.Lock()
    _hands.clear()


os.register_at_fork(after_in_child=_begin_anew)
