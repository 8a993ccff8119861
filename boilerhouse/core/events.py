"""The event log. ``emit`` is its only writer. Ids commit in order, so reading ``id > last`` misses nothing.

Events are the last statements of their transaction, under an advisory lock on PostgreSQL. Otherwise an id that is
assigned earlier but commits later would be missed by every reader that has already moved past it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from django.db import connection, transaction

from boilerhouse.core import context
from boilerhouse.core.models import Event

log = structlog.get_logger(__name__)

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
        "container.lost",
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
        "node.lost",
        "node.draining",
        "node.drained",
        "node.removed",
        "node.thawed",
        "node.cordoned",
        "node.uncordoned",
        "node.joined",
    ]
)
PROGRESS = frozenset(["sync.progress", "pool.pulling"])
"""Frequent types that lists of events leave out."""
ROUTINE = PROGRESS | {"container.created", "container.ready", "container.destroyed", "sync.started"}
"""Types of what happens all the time without anybody's doing. Feeds hide them; readers of the API get them."""
CHANNEL = "boilerhouse"
_ADVISORY_LOCK = 0x626F696C


class _Open(threading.local):
    pending: list[Event] | None = None
    """The events of the open transaction."""
    effects: list[Callable[[], object]] | None = None
    """What is done when it has committed."""
    begin: Callable[[], None] | None = None
    """Begins the transaction of the surrounding request, in which all blocks are parts (``core.all_or_nothing``)."""


_open = _Open()


@contextmanager
def recording() -> Iterator[None]:
    """A transaction that writes its events just before it commits; joins an outer one."""
    if _open.begin is not None:
        _open.begin()
    if _open.pending is None:
        with collecting_effects(), outermost():
            yield
    else:
        with _part():
            yield


def is_recording() -> bool:
    """Whether this thread is in a ``recording()`` block or in that of a request."""
    return _open.effects is not None


@contextmanager
def outermost() -> Iterator[None]:
    """The transaction that the other blocks are parts of."""
    _open.pending = []
    try:
        with transaction.atomic():
            yield
            _flush(_open.pending)
    finally:
        _open.pending = None


@contextmanager
def _part() -> Iterator[None]:
    """A savepoint. If it is rolled back, its events and effects are forgotten."""
    pending, effects = _open.pending, _open.effects
    assert pending is not None
    assert effects is not None
    marks = len(pending), len(effects)
    try:
        with transaction.atomic():
            yield
            if _open.begin is not None:
                _check_constraints()
    except BaseException:
        del pending[marks[0] :]
        del effects[marks[1] :]
        raise


def _check_constraints() -> None:
    """Deferred foreign keys fail in the service that knows what that means, and not when the request commits.

    SQLite has one writer, so nothing changes between a service's own check and the commit.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED")


@contextmanager
def beginning_by(begin: Callable[[], None]) -> Iterator[None]:
    """``recording()`` calls this first, which begins the transaction of a whole request."""
    _open.begin = begin
    try:
        yield
    finally:
        _open.begin = None


@contextmanager
def collecting_effects() -> Iterator[None]:
    """What ``afterwards`` is given within the block is done after it, unless the block raises."""
    effects: list[Callable[[], object]] = []
    _open.effects = effects
    try:
        yield
    finally:
        _open.effects = None
    for effect in effects:
        _do(effect)


def afterwards(effect: Callable[[], object]) -> None:
    """Do this when the surrounding transaction has committed, or now if there is none.

    For what cannot be rolled back. An error in it is logged: what was committed stays true.
    """
    if _open.effects is None:
        _do(effect)
    else:
        _open.effects.append(effect)


def _do(effect: Callable[[], object]) -> None:
    try:
        effect()
    except Exception as error:
        name = getattr(getattr(effect, "func", effect), "__qualname__", "")
        log.error("not done after a commit", effect=name, error=type(error).__name__, exc_info=True)


def emit(
    type: str,
    *,
    pool_id: str = "",
    container_id: object = "",
    tenant_id: str = "",
    actor: str | None = None,
    private: Any = None,
    is_routine: bool | None = None,
    **payload: Any,
) -> None:
    """Record an event in the surrounding ``recording()`` block or in a transaction of its own.

    ``is_routine`` says whether feeds hide it; by default its type decides. ``private``, an object or None, is the part
    of the payload that may contain tenants' output. Only those who may read logs see it.
    """
    assert type in TYPES, type
    event = Event(
        type=type,
        pool_id=pool_id,
        container_id=str(container_id or ""),
        tenant_id=tenant_id,
        actor=actor or context.actor(),
        request_id=context.request_id(),
        is_routine=type in ROUTINE if is_routine is None else is_routine,
        payload=payload,
        private=private,
    )
    if _open.begin is not None:
        _open.begin()
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
