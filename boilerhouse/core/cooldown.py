"""Rate limiting of repeated actions within one process."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable


class Cooldown:
    """Remembers keys for ``seconds``, in this process only. A forgotten key causes only a harmless repetition."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._times: dict[Hashable, float] = {}
        self._changing = threading.Lock()

    def is_new(self, key: Hashable) -> bool:
        """Whether ``key`` was not recorded within that time; records it. Of concurrent threads, only one gets True."""
        now = time.monotonic()
        with self._changing:
            self._times = {k: at for k, at in self._times.items() if now - at < self._seconds}
            if key in self._times:
                return False
            self._times[key] = now
            return True

    def clear(self) -> None:
        with self._changing:
            self._times.clear()
