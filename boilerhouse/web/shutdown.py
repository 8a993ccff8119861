"""Graceful shutdown of a web process: streams end, requests are finished, waiting clients are told to try again."""

from __future__ import annotations

import asyncio


class OneTimeEvent:
    """A one-time event that coroutines of any event loop can wait for."""

    def __init__(self) -> None:
        self.is_set = False
        self._waiting: set[asyncio.Future[None]] = set()

    async def wait(self) -> None:
        if self.is_set:
            return
        future = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)

    def set(self) -> None:
        """Call it in the event loop of the waiting coroutines."""
        self.is_set = True
        for future in self._waiting:
            if not future.done():
                future.set_result(None)


begun = OneTimeEvent()
"""No new connection is accepted; streams end, and their clients reconnect."""
cut = OneTimeEvent()
"""Waiting requests are answered now: 503 ``outcome_unknown``, to be repeated."""
