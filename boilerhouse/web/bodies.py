"""Bodies of requests in a web process's memory, and whose budget they are part of."""

from __future__ import annotations

from boilerhouse.process.budgets import Hold


class Body:
    """What a request brought, until its view has looked at it; a request that waits has none any more."""

    __slots__ = ("_hold", "data")

    def __init__(self, data: bytes, hold: Hold | None) -> None:
        self.data, self._hold = data, hold

    def drop(self) -> None:
        """Nobody needs it any more; may be called by any thread, and twice."""
        self.data = b""
        if self._hold is not None:
            self._hold.release()
