"""Slots for waiting: how many clients may wait for something slow, in total and per client."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class WaitSlots:
    """Used in one event loop only."""

    def __init__(self, most: int, most_of_one: int) -> None:
        self._most, self._most_of_one = most, most_of_one
        self._places: Counter[str] = Counter()
        self._count = 0

    @contextmanager
    def place(self, of: str) -> Iterator[bool]:
        """Whether there was a free slot; it is held while the block runs."""
        if self._count >= self._most or self._places[of] >= self._most_of_one:
            yield False
            return
        self._places[of] += 1
        self._count += 1
        try:
            yield True
        finally:
            self._count -= 1
            self._places[of] -= 1
            if not self._places[of]:
                del self._places[of]
