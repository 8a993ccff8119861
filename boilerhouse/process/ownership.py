"""The rows that this process works on, and how it gives them up when it loses the database (ADR 61).

A row names the process that works on it, and is taken over when that is dead. A thread that loses the database can
record neither success nor failure, while its process continues with other threads. So each unit of work remembers its
rows, and the heartbeat releases them as soon as the database answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from uuid import UUID

import structlog
from django.db import connection
from django.db.models import Model, Q, QuerySet

from boilerhouse.process import processes

log = structlog.get_logger(__name__)

Row = tuple[type[Model], Any]
"""A model with an ``owner`` column and a primary key."""

_rows: ContextVar[set[Row] | None] = ContextVar("taken", default=None)
_given_up: set[Row] = set()
"""Rows that may name this process although no thread here works on them."""


@contextmanager
def unit_of_work() -> Iterator[None]:
    """The rows taken within the block are given up together."""
    token = _rows.set(set())
    try:
        yield
    finally:
        _rows.reset(token)


def take(model: type[Model], pk: Any) -> UUID:
    """The id to write into the row as its owner."""
    row = model, pk
    _given_up.discard(row)  # this process works on it again
    if (rows := _rows.get()) is not None:
        rows.add(row)
    return processes.current()


def adopt(rows: QuerySet[Any], pk: Any) -> bool:
    """Whether this process owns the row now: it is one of ``rows``, and no other living process works on it."""
    me, row = take(rows.model, pk), rows.filter(pk=pk)
    if row.filter(Q(owner=None) | Q(owner=me)).update(owner=me):  # as nearly always, and without asking who lives
        return True
    return bool(row.filter(owner__isnull=False).exclude(owner__in=processes.living() - {me}).update(owner=me))


def give_up(*rows: Row) -> None:
    """Give up these rows, and all others of this unit of work, so that another thread or process takes them over.

    Needs no database. Other work of this process is not affected.
    """
    connection.close()
    _given_up.update(rows, _rows.get() or ())


@processes.at_each_beat
def _set_free() -> None:
    """The database answers: clear the owner of the rows that were given up.

    A row that is taken again at this moment loses its owner too: its work backs off and is taken over.
    """
    for row in list(_given_up):
        model, pk = row
        if model._default_manager.filter(pk=pk, owner=processes.current()).update(owner=None):
            log.info("work given up", of=model._meta.model_name, row=str(pk))
        _given_up.discard(row)
