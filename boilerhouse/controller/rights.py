"""Rights that one process at a time holds, as long as it renews them in the database: to lead, to watch a node."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

TTL = timedelta(seconds=4)
"""How long a right lasts without being renewed."""
RENEW_EVERY_S = 1.8


class Right:
    """A right as this process knows it.

    ``take`` takes or renews it in the database for ``TTL``, and returns whether this process has it. ``is_held`` may be
    called by any thread.
    """

    def __init__(self, take: Callable[[], bool]) -> None:
        self._take = take
        self._until = 0.0

    def is_held(self) -> bool:
        """Whether it was renewed recently enough that no other process can hold it."""
        return time.monotonic() < self._until

    def renew(self) -> bool:
        """Take or renew it, if that is due. Returns whether this process has newly taken it. Raises what ``take``
        raises."""
        began = time.monotonic()
        if began <= self._until - TTL.total_seconds() + RENEW_EVERY_S:
            return False
        had = self._until
        self._until = began + TTL.total_seconds() if self._take() else 0.0
        return not had and bool(self._until)
