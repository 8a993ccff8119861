"""Streaming responses: first the head, then a coroutine writes until it is done or the client disconnects.

A writer never runs ahead of its client: the unsent data is bounded, and a client that reads nothing for a while is
disconnected. So a slow reader costs no memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Mapping
from typing import Any, Protocol

import structlog
from django.conf import settings
from django.http import HttpResponse

from boilerhouse.telemetry.instruments import OPEN_STREAMS
from boilerhouse.web import shutdown

log = structlog.get_logger(__name__)

MAX_BACKLOG_BYTES = 256 * 1024
FIRST_LOOK_S, LAST_LOOK_S = 0.001, 0.05
"""The first and the longest pause between two looks at a client's backlog: each pause is twice the one before."""

Backlog = Callable[[], int]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Stalled(Exception):
    """The client has read nothing for too long."""


class Writer:
    """Sends at the client's speed."""

    def __init__(self, send: Callable[[Any], Awaitable[None]], backlog: Backlog | None) -> None:
        self._send, self._backlog = send, backlog or (lambda: 0)

    async def write(self, message: Any) -> None:
        """Send one message. Raises Stalled."""
        if self._backlog() > MAX_BACKLOG_BYTES:
            await self._wait()
        await self._send(message)

    async def _wait(self) -> None:
        least, since, pause = self._backlog(), time.monotonic(), FIRST_LOOK_S
        while (backlog := self._backlog()) > MAX_BACKLOG_BYTES:
            if backlog < least:
                least, since = backlog, time.monotonic()
            elif time.monotonic() - since > settings.BOILERHOUSE_STREAM_STALL_S:
                raise Stalled
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_LOOK_S)


class Source(Protocol):
    """Chunks that a thread waits for; ``close``, from another thread, ends the wait."""

    def __iter__(self) -> Iterator[bytes]: ...

    def close(self) -> None: ...


AHEAD_BYTES = 64 * 1024


async def from_thread(source: Source, idle_s: float) -> AsyncGenerator[bytes]:
    """The chunks of ``source``, combined if it is faster than the reader, and an empty one after ``idle_s`` without
    data. It reads at most ``AHEAD_BYTES`` ahead.

    The source is closed when this ends. Raises what the source raises.
    """
    loop, has_come = asyncio.get_running_loop(), asyncio.Event()
    room, ahead, is_over = threading.Condition(), bytearray(), threading.Event()
    ended: list[Exception | None] = []

    def tell() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(has_come.set)

    def keep(chunk: bytes) -> None:
        with room:
            room.wait_for(lambda: len(ahead) < AHEAD_BYTES or is_over.is_set())
            is_first = not ahead
            ahead.extend(chunk)
        if is_first:
            tell()

    def read() -> None:
        error: Exception | None = None
        try:
            for chunk in source:
                keep(chunk)
                if is_over.is_set():
                    return
        except Exception as raised:
            error = raised
        ended.append(error)
        tell()

    # Not a pool's thread, which would keep the process from ending while a log is silent.
    threading.Thread(target=read, name="source", daemon=True).start()
    try:
        while True:
            try:
                await asyncio.wait_for(has_come.wait(), idle_s)
            except TimeoutError:
                yield b""
                continue
            has_come.clear()
            end = ended[:]  # checked before the rest is taken, so that nothing before the end is lost
            with room:
                piece = bytes(ahead)
                ahead.clear()
                room.notify()
            if piece:
                yield piece
            if end:
                if end[0] is not None:
                    raise end[0]
                return
    finally:
        is_over.set()
        with room:
            room.notify()
        await loop.run_in_executor(None, source.close)


class Stream(HttpResponse):
    """A response whose body is written by ``run(writer)``.

    One that ``is_whole`` has an end that its client can tell from a broken connection: if ``run`` raises, or is cut
    off, the connection is closed instead.
    """

    def __init__(
        self,
        run: Callable[[Writer], Coroutine[Any, Any, None]],
        content_type: str,
        *,
        is_whole: bool = False,
        length: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        own = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(content_type=content_type, headers={**own, **(headers or {})})
        self.run, self.is_whole, self.length = run, is_whole, length

    def when_closed(self, act: Callable[[], None]) -> None:
        """Have ``act`` called when the response is over, even if it never started."""
        self._resource_closers.append(act)  # type: ignore[attr-defined]


async def serve(work: Awaitable[None], gone: Awaitable[None], until: shutdown.OneTimeEvent = shutdown.begun) -> bool:
    """Run ``work`` until it is done, ``gone`` is set, or this process stops; Stalled ends it silently. Returns whether
    it was done."""
    OPEN_STREAMS.inc()
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone)
    stopping = asyncio.ensure_future(until.wait())
    try:
        await asyncio.wait((working, leaving, stopping), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            try:
                working.result()
            except Stalled:
                log.warning("slow reader dropped")
                return False
        return working.done()
    finally:
        OPEN_STREAMS.dec()
        for task in (working, leaving, stopping):
            task.cancel()
        await asyncio.gather(working, leaving, stopping, return_exceptions=True)
