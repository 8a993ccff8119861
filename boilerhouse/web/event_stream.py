"""Streams committed events to any number of readers.

A reader is a position in the log, not a queue: it takes newer events from the recent ones in memory, or from the
database if it is further behind. So no event is lost or doubled between replay and live events, and a slow reader costs
no memory.
"""

from __future__ import annotations

import asyncio
import bisect
import json
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import structlog
from django.core.serializers.json import DjangoJSONEncoder
from django.db import close_old_connections
from django.db.models import Max, QuerySet
from django.utils import timezone

from boilerhouse.core import api_keys
from boilerhouse.core.models import Deployment, Event
from boilerhouse.web.event_pump import pump
from boilerhouse.web.waiting import pulse

log = structlog.get_logger(__name__)
T = TypeVar("T")

KEPT = 5000
PAGE = 500
LOOK_AT_KEYS_EVERY_S = 0.5
MIN_INTERVAL_S = 0.01


def render_event(event: Event, *, reads_logs: bool = False) -> dict[str, Any]:
    """An event in the API's format, with its private part for roles that may read logs."""
    named = {"poolId": event.pool_id, "containerId": event.container_id, "tenantId": event.tenant_id}
    payload = {name: value for name, value in named.items() if value}
    payload |= {"actor": event.actor, "requestId": event.request_id, **event.payload}
    if reads_logs and event.private:
        payload |= event.private
    timestamp = event.created_at.isoformat().replace("+00:00", "Z")
    return {"id": event.id, "type": event.type, "payload": payload, "timestamp": timestamp}


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events a reader requests, and which it may read. Empty = all."""

    type: frozenset[str] = frozenset()
    pool_id: frozenset[str] = frozenset()
    container_id: frozenset[str] = frozenset()
    tenant_id: frozenset[str] = frozenset()
    reads_logs: bool = False
    """Whether the reader may read the private part of events."""

    @property
    def _values(self) -> Mapping[str, frozenset[str]]:
        names = ("type", "pool_id", "container_id", "tenant_id")
        return {name: values for name in names if (values := getattr(self, name))}

    def matches(self, event: Event) -> bool:
        return all(getattr(event, name) in values for name, values in self._values.items())

    def rows(self) -> QuerySet[Event]:
        return Event.objects.filter(**{f"{name}__in": values for name, values in self._values.items()})


@dataclass(frozen=True, slots=True)
class Sent:
    """What a reader gets: an event, or a notice to start again."""

    id: int
    text: str
    """JSON"""
    is_reset: bool = False


def _reset(position: int) -> Sent:
    at = timezone.now().isoformat().replace("+00:00", "Z")
    return Sent(position, json.dumps({"id": position, "type": "reset", "payload": {}, "timestamp": at}), True)


class Revoked(Exception):
    """The reader's key is no longer valid."""


@dataclass(frozen=True, slots=True)
class _Known:
    event: Event
    sent: Sent
    with_private: Sent

    def sent_to(self, filter_: EventFilter) -> Sent:
        return self.with_private if filter_.reads_logs else self.sent


def _load(rows: QuerySet[Event]) -> list[_Known]:
    encode = partial(json.dumps, cls=DjangoJSONEncoder, separators=(",", ":"))
    events = []
    for event in rows:
        sent = Sent(event.pk, encode(render_event(event)))
        full = Sent(event.pk, encode(render_event(event, reads_logs=True))) if event.private else sent
        events.append(_Known(event, sent, full))
    return events


def newest_id() -> int:
    return int(Event.objects.aggregate(newest=Max("id"))["newest"] or 0)


def is_lost(after: int) -> bool:
    """Whether events after ``after`` are missing: deleted by retention, or the database is an older one."""
    forgotten = Deployment.objects.values_list("events_forgotten_to", flat=True).first() or 0
    return after < forgotten or after > max(newest_id(), forgotten)


class Hub:
    """The recent events of this process, and the readers that wait for the next."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="events")
        self._recent: list[_Known] = []
        self._ids: list[int] = []
        self._head: int | None = None
        """All events up to this id have been read; None while there is no reader."""
        self._next: asyncio.Future[None] | None = None
        self._keys: dict[str, int] = {}
        self._dead: set[str] = set()
        self._runner: asyncio.Task[None] | None = None
        self.readers = 0

    async def read(
        self,
        after: int | None,
        filter_: EventFilter,
        key_id: str | None = None,
        idle_s: float = 15.0,
        *,
        opened_at: int | None = None,
    ) -> AsyncGenerator[Sent | None, None]:
        """Every requested event after ``after`` (None: from now on), then each new one; None after ``idle_s`` without
        events.

        ``opened_at`` is the newest id when the reader was told that its stream is open: from there on it misses none.

        A ``reset`` comes first if ``after`` is too old. Raises Revoked when the key becomes invalid.
        """
        with self._reading(key_id):
            position = await self._start()
            if after is not None:
                if await self._in_thread(is_lost, after):
                    position = await self._in_thread(newest_id)
                    yield _reset(position)
                else:
                    position = after
            elif opened_at is not None:
                position = opened_at
            spoke = time.monotonic()
            while True:
                if key_id in self._dead:
                    raise Revoked
                coming = self._next
                events, position_now = await self._after(position, filter_)
                for event in events:
                    yield event.sent_to(filter_)
                if events:
                    spoke = time.monotonic()
                if position_now > position:
                    position = position_now
                    continue
                remaining_s = spoke + idle_s - time.monotonic()
                if remaining_s <= 0:
                    spoke = time.monotonic()
                    yield None
                elif coming is not None:
                    await asyncio.wait((coming,), timeout=remaining_s)

    @contextmanager
    def _reading(self, key_id: str | None) -> Any:
        self.readers += 1
        if key_id is not None:
            self._keys[key_id] = self._keys.get(key_id, 0) + 1
        try:
            yield
        finally:
            self.readers -= 1
            if key_id is not None:
                self._keys[key_id] -= 1
                if not self._keys[key_id]:
                    del self._keys[key_id]
                    self._dead.discard(key_id)

    async def _after(self, position: int, filter_: EventFilter) -> tuple[list[_Known], int]:
        """Requested events after ``position``, and the position up to which that is complete."""
        assert self._head is not None
        if position >= self._head:
            return [], position
        if self._ids and position >= self._ids[0] - 1:
            events = self._recent[bisect.bisect_right(self._ids, position) :]
            return [event for event in events if filter_.matches(event.event)], self._head
        rows = filter_.rows().filter(pk__gt=position, pk__lte=self._head).order_by("pk")[:PAGE]
        page = await self._in_thread(_load, rows)
        return page, page[-1].sent.id if len(page) == PAGE else self._head

    async def _start(self) -> int:
        if self._runner is None or self._runner.done():
            loop, pulsed = asyncio.get_running_loop(), asyncio.Event()
            self._next = loop.create_future()
            self._head = None
            self._runner = loop.create_task(self._run(loop, pulsed))
        while self._head is None:
            assert self._next
            await asyncio.wait((self._next,), timeout=1)
        return self._head

    async def _run(self, loop: asyncio.AbstractEventLoop, pulsed: asyncio.Event) -> None:
        unsubscribe = pump.subscribe(partial(pulse, loop, pulsed))
        self._recent, self._ids, read_at = [], [], 0.0
        try:
            while self.readers:
                try:
                    if self._head is None:
                        self._head = await self._in_thread(newest_id)
                    while await self._take():
                        pass
                    if self._keys and time.monotonic() - read_at > LOOK_AT_KEYS_EVERY_S:
                        read_at = time.monotonic()
                        living = await self._in_thread(api_keys.living_keys, list(self._keys))
                        self._dead = set(self._keys) - living
                except Exception as error:
                    log.warning("events unavailable", error=type(error).__name__)
                    await asyncio.sleep(0.5)
                self._tell(loop)
                await pulsed.wait()
                pulsed.clear()
                await asyncio.sleep(MIN_INTERVAL_S)  # batch events that are committed close together
        finally:
            unsubscribe()
            self._head = None
            self._tell(loop)

    async def _take(self) -> bool:
        assert self._head is not None
        rows = Event.objects.filter(pk__gt=self._head).order_by("pk")[:PAGE]
        page = await self._in_thread(_load, rows)
        if page:
            self._recent += page
            self._ids += [event.sent.id for event in page]
            if len(self._recent) > 2 * KEPT:
                del self._recent[:-KEPT], self._ids[:-KEPT]
            self._head = page[-1].sent.id
        return len(page) == PAGE

    def _tell(self, loop: asyncio.AbstractEventLoop) -> None:
        future, self._next = self._next, loop.create_future()
        if future is not None and not future.done():
            future.set_result(None)

    async def _in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, _fresh, function, arguments)


def _fresh(function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    close_old_connections()  # no request would close the connections of these threads
    return function(*arguments)


hub = Hub()
