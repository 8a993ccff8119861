"""Checks that the time of some work grows linearly with its input."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def given_up(most_s: float) -> Iterator[None]:
    """What computes for longer fails; Python's regular expressions hear signals. Processor time, not the clock's."""

    def give_up(*_: object) -> None:
        raise AssertionError("it is not linear")

    before = signal.signal(signal.SIGVTALRM, give_up)
    signal.setitimer(signal.ITIMER_VIRTUAL, most_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
