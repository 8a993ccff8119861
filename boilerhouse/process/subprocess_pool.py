"""Runs computations on untrusted input in separate processes (ADR 41).

One of our programs answers questions, one line of JSON each, and reports the time it took. It limits its own processor
time and memory, so a question that exceeds them ends only that process, and another is started. Each asker (a tenant,
for example) asks one question at a time and must pause after long ones, so it never uses more than one process.
"""

from __future__ import annotations

import json
import math
import os
import queue
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from boilerhouse.core.errors import Unavailable
from boilerhouse.process import fair_semaphore, priority
from boilerhouse.process.budgets import BudgetExceeded
from boilerhouse.telemetry.instruments import BUDGET_REFUSALS

URGENT_S = 0.02
"""The time for an ordinary question while its asker waits. Until then the process has our priority (ADR 24)."""
PATIENCE_S = 5.0
"""Limit by the clock, if the machine is too busy for the program to reach its own limit."""
PLACE_S = 2.0
"""How long a question waits for a free process."""
OWN_TURN_S = 0.25
"""How long a question waits for another one of the same asker."""
ENDED_S = 1.0
"""The maximum charge for a question without an answer."""
FREE_S = 0.05
"""Computing time of a question that is not charged."""
ALLOWED_S = 0.5
"""The computing time that an asker may use at once; it is restored at ``RECOVERY``."""
RECOVERY = 0.1
"""Seconds of computing per second."""
MAX_DEBTS = 1000
CHUNK = 1 << 16


class LimitExceeded(Exception):
    """The question exceeded the program's limits or crashed it. There is no answer."""


class NoFreeProcess(Unavailable):
    """All processes are busy with other questions. Try again."""

    code = "computing_busy"
    retry_after = 1


class AllowanceSpent(BudgetExceeded):
    """Another question of the same asker is running, or recent ones took long. Try again."""

    def __init__(self, retry_after: float = 1) -> None:
        BUDGET_REFUSALS.labels("computing", "asker").inc()
        super().__init__()
        self.retry_after = math.ceil(retry_after)  # type: ignore[misc]  # a different one each time


class SubprocessPool:
    """Runs ``program`` in up to ``places`` processes, each started on first use."""

    def __init__(self, program: Path, places: int = 3) -> None:
        self._program, self._count = program, places
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._places: queue.LifoQueue[_Process | None] = queue.LifoQueue()
        for _ in range(self._count):
            self._places.put(None)
        self._askers = _Askers()

    def warm(self) -> None:
        """Start one process, so that the first question does not wait for it."""
        with self._place() as place:
            place.running()

    def ask(self, question: Any, asker: str) -> Any:
        """The program's answer. Raises LimitExceeded, NoFreeProcess, AllowanceSpent."""
        line = json.dumps(question).encode() + b"\n"
        with fair_semaphore.yield_slot(), self._askers.turn(asker), self._place() as place:
            process = place.running()
            began = time.monotonic()
            try:
                reply = process.ask(line)
            except BaseException:
                self._askers.charge(asker, min(ENDED_S, time.monotonic() - began))
                place.renew()  # the next question does not wait for its start
                raise
            self._askers.charge(asker, reply["took"])
            return reply["answer"]

    @contextmanager
    def _place(self) -> Iterator[_Place]:
        try:
            place = _Place(self._program, self._places.get(timeout=PLACE_S))
        except queue.Empty:
            raise NoFreeProcess from None
        try:
            yield place
        finally:
            self._places.put(place.process)


class _Place:
    def __init__(self, program: Path, process: _Process | None) -> None:
        self._program, self.process = program, process

    def running(self) -> _Process:
        if self.process is None or not self.process.is_alive:
            self.renew()
        assert self.process
        return self.process

    def renew(self) -> None:
        old, self.process = self.process, None
        if old is not None:
            old.end()
        self.process = _Process(self._program)


class _Process:
    def __init__(self, program: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(program)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={}, bufsize=0,
        )  # fmt: skip
        assert self._process.stdin
        assert self._process.stdout
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._to, False)

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def ask(self, line: bytes) -> Any:
        """Raises LimitExceeded, NoFreeProcess; the process can then no longer be used."""
        began = time.monotonic()
        self._unsent, self._received = memoryview(line), bytearray()
        if not self._goes_on(began + URGENT_S):
            with priority.lowered(self._process.pid):
                if not self._goes_on(began + PATIENCE_S):
                    raise NoFreeProcess
        return json.loads(self._received)

    def _goes_on(self, until: float) -> bool:
        """Whether the complete answer arrives by then."""
        poll = select.poll()
        poll.register(self._from, select.POLLIN)
        if self._unsent:
            poll.register(self._to, select.POLLOUT)
        while (left_s := until - time.monotonic()) > 0:
            for pipe, _ in poll.poll(left_s * 1000):
                if pipe == self._from:
                    if self._is_heard():
                        return True
                elif self._is_said():
                    poll.unregister(self._to)
        return False

    def _is_said(self) -> bool:
        try:
            self._unsent = self._unsent[os.write(self._to, self._unsent[:CHUNK]) :]
        except BrokenPipeError as error:
            raise LimitExceeded from error
        return not self._unsent

    def _is_heard(self) -> bool:
        if not (chunk := os.read(self._from, CHUNK)):
            raise LimitExceeded
        self._received += chunk
        return chunk.endswith(b"\n")


class _Askers:
    """Allows each asker one question at a time, and a pause after long ones."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._busy: set[str] = set()
        self._debts: dict[str, tuple[float, float]] = {}
        """Seconds of computing, and the time of that reading."""

    @contextmanager
    def turn(self, asker: str) -> Iterator[None]:
        with self._changed:
            self._check(asker)
            if not self._changed.wait_for(lambda: asker not in self._busy, OWN_TURN_S):
                raise AllowanceSpent
            self._check(asker)
            self._busy.add(asker)
        try:
            yield
        finally:
            with self._changed:
                self._busy.remove(asker)
                self._changed.notify_all()

    def charge(self, asker: str, took: float) -> None:
        """Charge ``asker`` for ``took`` seconds of processor time. Elapsed time would depend on the load of the
        machine."""
        if took <= FREE_S:
            return
        with self._changed:
            if len(self._debts) > MAX_DEBTS:
                self._debts = {name: debt for name, debt in self._debts.items() if self._debt(name)}
            self._debts[asker] = (self._debt(asker) + took - FREE_S, time.monotonic())

    def _debt(self, asker: str) -> float:
        debt, since = self._debts.get(asker, (0.0, 0.0))
        return max(0.0, debt - (time.monotonic() - since) * RECOVERY)

    def _check(self, asker: str) -> None:
        if (over := self._debt(asker) - ALLOWED_S) > 0:
            raise AllowanceSpent(over / RECOVERY)
