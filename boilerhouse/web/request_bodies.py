"""Request bodies in the memory of a web process, and their budgets."""

from __future__ import annotations

from boilerhouse.process.budgets import Hold


class Body:
    """A request body, kept until its view has read it. A request that waits has none any more."""

    __slots__ = ("_hold", "data")

    def __init__(self, data: bytes, hold: Hold | None) -> None:
        self.data, self._hold = data, hold

    def drop(self) -> None:
        """Free the body. May be called repeatedly and from any thread."""
        self.data = b""
        if self._hold is not None:
            self._hold.release()
