"""The event log. ``emit`` is its only writer; ids commit in order, so ``id > last`` loses nothing.

Events are the last statements of their transaction, under an advisory lock on PostgreSQL: an id that
was taken earlier but commits later would be lost to every reader that already moved past it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection, transaction

from boilerhouse.core import context
from boilerhouse.core.models import Event

TYPES = frozenset(
    [
        "container.created",
        "container.ready",
        "container.claimed",
        "container.claim_failed",
        "container.released",
        "container.destroyed",
        "container.unhealthy",
        "container.failed",
        "container.release_failed",
        "sync.started",
        "sync.progress",
        "sync.completed",
        "sync.failed",
        "sync.cancelled",
        "pool.pulling",
        "pool.pulled",
        "pool.scaled",
        "pool.warning",
        "pool.recovered",
        "workload.updated",
        "node.silent",
        "node.returned",
    ]
)
PROGRESS = frozenset(["sync.progress", "pool.pulling"])
"""Types of which many say one thing: no list of what has happened shows them."""
CHANNEL = "boilerhouse"
_ADVISORY_LOCK = 0x626F696C


class _Open(threading.local):
    pending: list[Event] | None = None


_open = _Open()


@contextmanager
def recording() -> Iterator[None]:
    """A transaction whose events are written just before it commits; joins an outer one."""
    if _open.pending is not None:
        with transaction.atomic():
            yield
        return
    _open.pending = []
    try:
        with transaction.atomic():
            yield
            _flush(_open.pending)
    finally:
        _open.pending = None


def emit(
    type: str,
    *,
    pool_id: str = "",
    container_id: object = "",
    tenant_id: str = "",
    actor: str | None = None,
    private: Any = None,
    **payload: Any,
) -> None:
    """Record that something happened, in the surrounding ``recording()`` or in a transaction of its own.

    ``private``, an object or None, is the part of the payload that may hold what tenants print: only who may read
    logs is shown it.
    """
    assert type in TYPES, type
    event = Event(
        type=type,
        pool_id=pool_id,
        container_id=str(container_id or ""),
        tenant_id=tenant_id,
        actor=actor or context.actor(),
        request_id=context.request_id(),
        payload=payload,
        private=private,
    )
    if _open.pending is None:
        with transaction.atomic():
            _flush([event])
    else:
        _open.pending.append(event)


def wake() -> None:
    """Tell waiting processes that a row they may wait for has changed; no event is recorded.

    SQLite needs no word: its readers see every commit of another process.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify(%s, '')", [CHANNEL])


def _flush(events: list[Event]) -> None:
    if not events:
        return
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            # Deferred foreign keys lock rows when they are checked: before this lock, for no lock may come after it.
            # The word to waiting processes goes out with the commit, whenever it is said.
            cursor.execute(
                f"SET CONSTRAINTS ALL IMMEDIATE; SELECT pg_advisory_xact_lock({_ADVISORY_LOCK});"
                f" SELECT pg_notify('{CHANNEL}', '')"
            )
    Event.objects.bulk_create(events)
