"""Places in a line: how many may wait for something slow, and how many of these for one client."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Line:
    """Used in one event loop only."""

    def __init__(self, most: int, most_per_address: int) -> None:
        self._most, self._most_per_address = most, most_per_address
        self._places: Counter[str] = Counter()

    @contextmanager
    def place(self, address: str) -> Iterator[bool]:
        """Whether there was a place; while the block runs it is taken."""
        if self._places.total() >= self._most or self._places[address] >= self._most_per_address:
            yield False
            return
        self._places[address] += 1
        try:
            yield True
        finally:
            self._places[address] -= 1
            self._places += Counter()  # addresses that are gone are forgotten
