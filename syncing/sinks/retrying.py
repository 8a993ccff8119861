"""Patience with a sink that fails for a moment: ask again, with pauses that grow and differ."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from syncing.errors import SinkThrottled, SinkUnreachable

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 5.0
THROTTLED_S = 20.0
"""How long a run goes on asking a sink that wants fewer requests."""
TRIES = 3
"""How often a run asks a sink that does not answer: each time may take its whole deadline."""

T = TypeVar("T")


def retry(ask: Callable[[], T], *, within_s: float = THROTTLED_S, tries: int = TRIES) -> T:
    """What ``ask`` returns, asked again where that can help.

    A throttled question is asked until ``within_s`` are over, one that got no answer ``tries`` times. Raises what was
    said last.
    """
    until, failed = time.monotonic() + within_s, 0
    pauses = 0
    while True:
        try:
            return ask()
        except SinkThrottled as error:
            pause = max(pause_s(pauses), error.after_s)
            if time.monotonic() + pause > until:
                raise
        except SinkUnreachable:
            failed += 1
            pause = pause_s(pauses)
            if failed >= tries:
                raise
        time.sleep(pause)
        pauses += 1


def pause_s(number: int) -> float:
    """Twice as long each time, and never the same for all who were refused at the same moment."""
    longest: float = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**number)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
