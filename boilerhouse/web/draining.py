"""A web process that is asked to stop: streams end, requests are finished, waiting ones are told to ask again."""

from __future__ import annotations

import asyncio


class Moment:
    """Something that comes once; coroutines of any event loop wait for it."""

    def __init__(self) -> None:
        self.has_come = False
        self._waiting: set[asyncio.Future[None]] = set()

    async def wait(self) -> None:
        if self.has_come:
            return
        future = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)

    def come(self) -> None:
        """Call it in the event loop of those who wait."""
        self.has_come = True
        for future in self._waiting:
            if not future.done():
                future.set_result(None)


begun = Moment()
"""No new connection is taken; streams end, their clients connect again."""
cut = Moment()
"""Requests that wait are answered now: 503 ``outcome_unknown``, to be asked again."""
