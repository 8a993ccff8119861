"""Queries that a process repeats for as long as it runs, built once.

Django takes several times as long to build a query as the database takes to answer it. For the queries of a deployment
at rest, that is most of the processor time (ADR 83). Their values do not change; where each call has other values, see
``prepared``.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import lru_cache, wraps
from typing import Any, TypeVar, cast

from django.db import DEFAULT_DB_ALIAS, connection
from django.db.models import Model, QuerySet
from django.db.models.sql import UpdateQuery

M = TypeVar("M", bound=Model)
KEPT = 64
"""How many queries of one function are kept: one for each combination of its arguments."""


@dataclass(frozen=True, slots=True)
class Compiled:
    sql: str
    parameters: tuple[Any, ...]

    def run(self) -> int:
        """Returns the number of rows that were changed."""
        with connection.cursor() as cursor:
            cursor.execute(self.sql, self.parameters)
            return cast(int, cursor.rowcount)

    def rows(self) -> list[tuple[Any, ...]]:
        """The values as the database's driver returns them: a UUID or a time of SQLite is text."""
        with connection.cursor() as cursor:
            cursor.execute(self.sql, self.parameters)
            return list(cursor.fetchall())

    def instances(self, model: type[M]) -> list[M]:
        """The rows as instances of their model, with the annotations of the query set as attributes."""
        return list(model._default_manager.raw(self.sql, self.parameters))

    def exists(self) -> bool:
        """Whether the query has a row."""
        return bool(self.rows())


def selection(rows: QuerySet[Any, Any]) -> Compiled:
    """The query of ``rows``. For ``rows()`` it should name its columns (``values_list``)."""
    sql, parameters = rows.query.get_compiler(DEFAULT_DB_ALIAS).as_sql()
    return Compiled(sql, tuple(parameters))


def update(rows: QuerySet[Any, Any], **values: object) -> Compiled:
    """The query of ``rows.update(**values)``."""
    query = cast(UpdateQuery, rows.query.chain(UpdateQuery))
    query.add_update_values(values)
    query.annotations = {}
    sql, parameters = query.get_compiler(DEFAULT_DB_ALIAS).as_sql()
    return Compiled(sql, tuple(parameters))


def cached(build: Callable[..., Compiled]) -> Callable[..., Compiled]:
    """Call ``build`` once for each combination of arguments. All values of the query must follow from these arguments,
    so a time is ``Now()``."""

    @lru_cache(KEPT)
    def of_vendor(_vendor: str, *args: Hashable) -> Compiled:
        return build(*args)

    @wraps(build)
    def look_up(*args: Hashable) -> Compiled:
        return of_vendor(connection.vendor, *args)

    return look_up
