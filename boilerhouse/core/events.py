"""The event log. ``emit`` is its only writer. Ids commit in order, so reading ``id > last`` misses nothing.

Events are the last statements of their transaction, under an advisory lock on PostgreSQL. Otherwise an id that is
assigned earlier but commits later would be missed by every reader that has already moved past it.
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
"""Frequent types that lists of events leave out."""
CHANNEL = "boilerhouse"
_ADVISORY_LOCK = 0x626F696C


class _Open(threading.local):
    pending: list[Event] | None = None


_open = _Open()


@contextmanager
def recording() -> Iterator[None]:
    """A transaction that writes its events just before it commits; joins an outer one."""
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
    """Record an event in the surrounding ``recording()`` block or in a transaction of its own.

    ``private``, an object or None, is the part of the payload that may contain tenants' output. Only those who may read
    logs see it.
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
    """Notify waiting processes that a row they may wait for has changed. No event is recorded.

    SQLite needs no notification: its readers see every commit of another process.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify(%s, '')", [CHANNEL])


def _flush(events: list[Event]) -> None:
    if not events:
        return
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            # Deferred foreign keys lock rows when they are checked, so check them before this lock is taken: no lock
            # may follow it. PostgreSQL delivers the notification when the transaction commits.
            cursor.execute(
                f"SET CONSTRAINTS ALL IMMEDIATE; SELECT pg_advisory_xact_lock({_ADVISORY_LOCK});"
                f" SELECT pg_notify('{CHANNEL}', '')"
            )
    Event.objects.bulk_create(events)
