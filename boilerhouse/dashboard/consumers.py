"""The socket of a page: after each commit elsewhere it sends the fragments that now look different.

Level-triggered: what is sent follows from the database, not from messages, so none can be lost, and a socket that
reconnects gets everything anew.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.template.loader import render_to_string

from boilerhouse.core.live import pump
from boilerhouse.core.waiting import pulse
from boilerhouse.dashboard.overview import overview

MIN_INTERVAL_S = 0.15
NOT_SIGNED_IN = 4401


def fragments() -> dict[str, str]:
    """The overview's live parts by DOM id, in the order in which they are sent."""
    context = {**overview(), "oob": True}
    parts: dict[str, str] = {
        name: render_to_string(f"dashboard/overview.html#{name}", context)
        for name in ("lede", "needs", "tiles", "feed")
    }
    for row in context["rows"]:
        parts[f"pool-{row.pool.pk}"] = render_to_string("dashboard/overview.html#pool-row", {"row": row, "oob": True})
    return parts


def pool_list() -> str:
    return render_to_string("dashboard/overview.html#pool-list", {**overview(), "oob": True})


class PageConsumer(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        self._sent: dict[str, str] = {}
        self._unsubscribe: Callable[[], None] = lambda: None
        self._task: asyncio.Task[None] | None = None
        await self.accept()
        user = self.scope.get("user")
        if user is None or not user.is_authenticated or not user.is_staff:
            await self.close(NOT_SIGNED_IN)
            return
        loop, changed = asyncio.get_running_loop(), asyncio.Event()
        changed.set()
        self._unsubscribe = pump.subscribe(partial(pulse, loop, changed))
        self._task = loop.create_task(self._follow(changed))

    async def disconnect(self, code: int) -> None:
        self._unsubscribe()
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _follow(self, changed: asyncio.Event) -> None:
        while True:
            await changed.wait()
            changed.clear()
            await self._send_changes()
            await asyncio.sleep(MIN_INTERVAL_S)

    async def _send_changes(self) -> None:
        current: dict[str, str] = await database_sync_to_async(fragments)()
        rows = {name for name in current if name.startswith("pool-")}
        known = {name for name in self._sent if name.startswith("pool-")}
        whole = rows != known or not self._sent  # a row that the page does not have has no place to go
        changed = [
            html for name, html in current.items() if self._sent.get(name) != html and not (whole and name in rows)
        ]
        if whole:
            changed.append(await database_sync_to_async(pool_list)())
        self._sent = current
        for fragment in changed:  # each by itself: a parser drops a table row that follows other elements
            await self.send(text_data=fragment)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """The page says nothing that matters here."""
