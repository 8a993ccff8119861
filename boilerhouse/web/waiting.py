"""Waiting requests: they use no thread and no database connection, only a coroutine.

A view that cannot answer yet returns ``Waiting(key, check, until)``. The ASGI handler frees its thread, waits until
``check`` returns the key as settled (one query for all keys of a check) or ``until`` passes, and runs the view again
with ``request.resumed`` set.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Hashable
from concurrent.futures import Executor
from functools import partial
from typing import Any

from django.db import close_old_connections
from django.http import HttpResponse

from boilerhouse.process import budgets
from boilerhouse.web import shutdown
from boilerhouse.web.event_pump import pump

Check = Callable[[set[Hashable]], set[Hashable]]


def pulse(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    loop.call_soon_threadsafe(event.set)


class Waiting(HttpResponse):
    """Not a response: run the view again when ``check`` reports ``key`` as settled, or at ``until``."""

    def __init__(self, key: Hashable, check: Check, until: float) -> None:
        super().__init__(status=202)
        self.key, self.check, self.until = key, check, until
        self.state: Any = None
        """Data that the view needs to continue."""
        self.owners: tuple[budgets.Owner, ...] = ()
        """The owners of the request."""
        self.idempotency: Any = None
        """The record for the stored response."""
        self._hold: budgets.Hold | None = None

    def join(self) -> None:
        """Count it for its owners from now on, and once for all requests that wait for the same; until ``leave``."""
        if self._hold is None:
            self._hold = _join((self.check, self.key), self.owners)

    def leave(self) -> None:
        """Stop counting it; may be called repeatedly and from any thread."""
        if self._hold is not None:
            self._hold.release()

    def block(self) -> None:
        """Wait in this thread; for callers without an event loop (commands, tests)."""
        while time.time() < self.until and self.key not in self.check({self.key}):
            time.sleep(0.02)


_counting = threading.Lock()
_joined: dict[Hashable, tuple[int, budgets.Hold]] = {}
"""A condition that requests wait for: how many, and their slot in the total."""


def _join(thing: Hashable, owners: tuple[budgets.Owner, ...]) -> budgets.Hold:
    with _counting:
        count, place = _joined.get(thing) or (0, budgets.waiters.add())
        _joined[thing] = (count + 1, place)
    return budgets.Hold(partial(_leave, thing, budgets.waiters.add(*owners, is_shared=True)))


def _leave(thing: Hashable, own: budgets.Hold) -> None:
    own.release()
    with _counting:
        count, place = _joined.pop(thing)
        if count > 1:
            _joined[thing] = (count - 1, place)
        else:
            place.release()


def _ask(check: Check, keys: set[Hashable]) -> set[Hashable]:
    close_old_connections()  # no request would close this thread's connection
    return check(keys)


class Waiters:
    """All waiting requests of this process, matched by one query per check and notification."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._events: dict[Check, dict[Hashable, set[asyncio.Event]]] = defaultdict(dict)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pulsed: asyncio.Event | None = None
        self._runner: asyncio.Task[None] | None = None

    async def wait(self, waiting: Waiting) -> None:
        event = asyncio.Event()
        self._start()
        keys = self._events[waiting.check]
        waiting.join()
        keys.setdefault(waiting.key, set()).add(event)
        assert self._pulsed
        self._pulsed.set()
        settled, cut = asyncio.ensure_future(event.wait()), asyncio.ensure_future(shutdown.cut.wait())
        remaining_s = max(0.0, waiting.until - time.time())
        try:
            # The view decides what happens after the deadline.
            await asyncio.wait((settled, cut), timeout=remaining_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            settled.cancel()
            cut.cancel()
            waiting.leave()
            keys[waiting.key].discard(event)
            if not keys[waiting.key]:
                del keys[waiting.key]

    def _start(self) -> None:
        if self._runner is None or self._runner.done():
            loop = self._loop = asyncio.get_running_loop()
            pulsed = self._pulsed = asyncio.Event()
            self._runner = loop.create_task(self._run())
            pump.subscribe(partial(pulse, loop, pulsed))

    async def _run(self) -> None:
        assert self._loop
        assert self._pulsed
        while True:
            await self._pulsed.wait()
            self._pulsed.clear()
            for check, keys in list(self._events.items()):
                if not keys:
                    continue
                try:
                    settled = await self._loop.run_in_executor(self._executor, _ask, check, set(keys))
                except Exception:  # the database is unavailable; the requests' own deadlines apply
                    await asyncio.sleep(0.5)
                    continue
                for key in settled:
                    for event in keys.get(key, ()):
                        event.set()
