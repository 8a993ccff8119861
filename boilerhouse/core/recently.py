"""What was done a moment ago: a message that is still on its way need not be doubled every second."""

from __future__ import annotations

import time
from collections.abc import Hashable


class Recently:
    """Remembers keys for ``seconds``, in this process only: forgetting one costs a harmless repetition."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._seen: dict[Hashable, float] = {}

    def is_new(self, key: Hashable) -> bool:
        """Whether ``key`` was not seen within that time; it is seen now."""
        now = time.monotonic()
        self._seen = {k: at for k, at in self._seen.items() if now - at < self._seconds}
        if key in self._seen:
            return False
        self._seen[key] = now
        return True

    def clear(self) -> None:
        self._seen.clear()
