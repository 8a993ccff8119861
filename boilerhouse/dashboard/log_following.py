"""Followed logs over the socket of a page, so that any number of tabs needs one connection each.

The page sends ``{"follow": container, "since": time}`` and ``{"unfollow": true}``. It gets ``{"log": text}`` with new
lines, each with its time, and ``{"log": "", "state": …, "detail": …}`` when following begins (``following``), ends
(``ended``) or is refused (``refused``, ``removed``).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any
from uuid import UUID

import structlog
from django.db import close_old_connections
from django.utils.dateparse import parse_datetime

from boilerhouse.core import text
from boilerhouse.core.errors import BoilerhouseError
from boilerhouse.core.models import Role
from boilerhouse.dashboard.access import signed_in
from boilerhouse.process import budgets
from boilerhouse.web.streaming import Stalled, Writer, from_thread
from pools import errors as pool_errors
from pools.models import Container
from pools.runtime.base import LogStream
from tenants import activity

log = structlog.get_logger(__name__)

LOOK_AT_SESSION_EVERY_S = 5.0
PAUSE_S = 0.05
"""Between two messages: a page draws no faster, and what a container prints meanwhile comes in one."""
MAX_TAIL = 10_000
_opening = ThreadPoolExecutor(4, thread_name_prefix="logs")
"""Threads that ask the engine: while it hangs, they wait, and no other page does."""


class NotAllowed(BoilerhouseError):
    """You need the operator role."""

    code = "forbidden"


@asynccontextmanager
async def following(scope: Any, writer: Writer) -> AsyncIterator[Callable[[str], Any]]:
    """Yields the function that gets the page's messages. When the block ends, nothing is followed any more."""
    follower = _Follower(scope, writer)
    try:
        yield follower.hear
    finally:
        await follower.stop()


class _Follower:
    def __init__(self, scope: Any, writer: Writer) -> None:
        self._user, self._session = scope["user"], scope["session"].session_key
        self._writer = writer
        self._task: asyncio.Task[None] | None = None

    async def hear(self, message: str) -> None:
        wish = _read(message)
        if "follow" not in wish and "unfollow" not in wish:
            return
        await self.stop()
        with suppress(ValueError):
            if "follow" in wish:
                container_id = UUID(str(wish["follow"])[:40])
                self._task = asyncio.create_task(self._follow(container_id, moment(str(wish.get("since", "")))))

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _follow(self, container_id: UUID, since: float | None) -> None:
        try:
            hold = budgets.follows.enter(budgets.user(self._user.get_username()), budgets.container(container_id))
            with hold:
                source = await self._opened(container_id, since)
                await self._say("following")
                await self._pass_on(source)
        except pool_errors.ContainerNotFound as error:
            await self._say("removed", error.detail)
        except BoilerhouseError as error:
            await self._say("refused", error.detail)
        except Stalled:
            log.warning("slow reader dropped", reader="log")
        except Exception as error:  # a defect ends the following, and not the page's connection
            log.error("following a log failed", error=type(error).__name__, exc_info=True)
            await self._say("ended")

    async def _opened(self, container_id: UUID, since: float | None) -> LogStream:
        """A stream that opens when nobody waits for it any more is closed."""
        opening = asyncio.get_running_loop().run_in_executor(_opening, _fresh, self._open, (container_id, since))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close)
            raise

    async def _pass_on(self, source: LogStream) -> None:
        checked_at, printer = time.monotonic(), text.Printer()
        with suppress(pool_errors.EngineUnavailable):
            async with aclosing(from_thread(source, LOOK_AT_SESSION_EVERY_S)) as chunks:
                async for chunk in chunks:
                    if printable := printer.feed(chunk).decode():
                        await self._send({"log": printable})
                        await asyncio.sleep(PAUSE_S)
                    if time.monotonic() - checked_at >= LOOK_AT_SESSION_EVERY_S:
                        checked_at = time.monotonic()
                        if not await self._in_thread(signed_in, self._user, self._session, Role.OPERATOR):
                            raise NotAllowed
        await self._say("ended")

    def _open(self, container_id: UUID, since: float | None) -> LogStream:
        """Raises NotAllowed, ContainerNotFound, and what the engine raises."""
        if not signed_in(self._user, self._session, Role.OPERATOR):
            raise NotAllowed
        container = Container.objects.filter(pk=container_id).first()
        if container is None:
            raise pool_errors.ContainerNotFound(f"There is no container {container_id}; it may have been removed.")
        try:
            return activity.follow_logs(container, 0 if since is None else MAX_TAIL, since, timestamps=True)
        except pool_errors.ContainerMissing as error:
            raise pool_errors.ContainerNotFound(error.detail) from error

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(_opening, _fresh, function, arguments)

    async def _say(self, state: str, detail: str = "") -> None:
        await self._send({"log": "", "state": state, "detail": detail})

    async def _send(self, message: dict[str, str]) -> None:
        await self._writer.write({"type": "websocket.send", "text": json.dumps(message)})


def _fresh(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    close_old_connections()  # no request would close the connections of these threads
    return function(*arguments)


def _close(opening: asyncio.Future[LogStream]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def _read(message: str) -> dict[str, Any]:
    with suppress(ValueError, RecursionError):
        wish = json.loads(message[:1000])
        if isinstance(wish, dict):
            return wish
    return {}


def moment(text: str) -> float | None:
    """Unix seconds of an RFC 3339 time; the engine's have more digits than Python supports."""
    head, dot, rest = text.partition(".")
    with suppress(ValueError):
        at = parse_datetime(f"{head}{dot}{rest[:6].rstrip('Z')}Z" if dot else text)
        return at.timestamp() if at is not None and at.tzinfo is not None and at.timestamp() >= 0 else None
    return None
