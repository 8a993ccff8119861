"""Retries for a sink that fails temporarily, with increasing, randomised pauses."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from syncing.errors import SinkThrottled, SinkUnreachable

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 5.0
THROTTLED_S = 20.0
"""How long a run retries a throttling sink."""
TRIES = 3
"""How often a run queries a sink that does not answer: each time may take its whole deadline."""

T = TypeVar("T")


def retry(ask: Callable[[], T], *, within_s: float = THROTTLED_S, tries: int = TRIES) -> T:
    """The result of ``ask``, retried if that can help.

    A throttled query is retried until ``within_s`` have passed, one without an answer ``tries`` times. Raises the last
    error.
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
    """Doubled each time, and randomised, so that clients refused at the same moment spread out."""
    longest: float = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**number)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
