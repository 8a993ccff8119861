"""Selections of the hot path: built once per connection, run with other values each time.

``compiled`` is for queries whose values stay the same, and for updates. This module also reads relations.

Django takes several times as long to build a query as the database takes to answer it. For the queries of a claim that
was a third of its processor time (ADR 104). A query stays a query set in the code; the values that change with each
call are ``Given``::

    @prepared.selection
    def _pool() -> QuerySet[Pool]:
        return Pool.objects.select_related("workload").filter(pk=Given("id", Pool._meta.pk))

    pool = _pool.first(id="notebooks")
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Expression, Field, ForeignObjectRel, Model, QuerySet
from django.db.models.query import get_related_populators
from django.db.models.sql.compiler import SQLCompiler

M = TypeVar("M", bound=Model)


class Given(Expression):
    """A value of the call, as the field stores it."""

    def __init__(self, name: str, field: Field[Any, Any] | ForeignObjectRel) -> None:
        assert isinstance(field, Field)
        super().__init__(output_field=field)
        self.name = name

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        return "%s", [self]


@dataclass(frozen=True, slots=True)
class _Statement:
    """A query set as SQL for one connection, and what makes instances of its rows."""

    connection: BaseDatabaseWrapper
    compiler: SQLCompiler
    sql: str
    parameters: tuple[Any, ...]
    converters: dict[int, Any]
    own: slice
    """The columns of the model itself; those of its relations follow."""
    names: list[str]
    """Their attributes."""
    populators: list[Any]

    @classmethod
    def of(cls, rows: QuerySet[Any, Any], connection: BaseDatabaseWrapper) -> _Statement:
        compiler = rows.query.get_compiler(connection=connection)
        sql, parameters = compiler.as_sql()
        converters = compiler.get_converters([column for column, _, _ in compiler.select[: compiler.col_count]])
        klass, own, populators = compiler.klass_info, slice(0), []
        if klass is not None:
            own = slice(klass["select_fields"][0], klass["select_fields"][-1] + 1)
            populators = get_related_populators(klass, compiler.select, DEFAULT_DB_ALIAS)  # type: ignore[call-arg]  # of Django 6
        names = [column.target.attname for column, _, _ in compiler.select[own]]
        return cls(connection, compiler, sql, tuple(parameters), converters, own, names, populators)

    def rows(self, values: dict[str, Any]) -> Iterator[Any]:
        with self.connection.cursor() as cursor:
            cursor.execute(self.sql, [self._value(parameter, values) for parameter in self.parameters])
            rows = cursor.fetchall()
        return self.compiler.apply_converters(rows, self.converters) if self.converters else iter(rows)

    def instances(self, values: dict[str, Any]) -> Iterator[Any]:
        klass = self.compiler.klass_info
        assert klass is not None
        for row in self.rows(values):
            instance = klass["model"].from_db(DEFAULT_DB_ALIAS, self.names, row[self.own])
            for populator in self.populators:
                populator.populate(row, instance)
            yield instance

    def _value(self, parameter: Any, values: dict[str, Any]) -> Any:
        if not isinstance(parameter, Given):
            return parameter
        return parameter.output_field.get_db_prep_value(values[parameter.name], self.connection)


class Selection(Generic[M]):
    """What a query set selects, with other values at each call. Its relations are as ``select_related`` says."""

    def __init__(self, build: Callable[[], QuerySet[M]]) -> None:
        self._build = build
        self._built = threading.local()
        self.__doc__ = build.__doc__

    def all(self, **values: Any) -> list[M]:
        return list(self._statement("all").instances(values))

    def first(self, **values: Any) -> M | None:
        """The first instance in the query set's order, which for at most one row need not be given."""
        return next(self._statement("all").instances(values), None)

    def exists(self, **values: Any) -> bool:
        return next(self._statement("exists").rows(values), None) is not None

    def _statement(self, kind: str) -> _Statement:
        connection = connections[DEFAULT_DB_ALIAS]
        statement: _Statement | None = getattr(self._built, kind, None)
        if statement is None or statement.connection is not connection:
            rows = self._build()
            if kind == "exists":
                rows = rows.all()
                rows.query = rows.query.exists()
            statement = _Statement.of(rows, connection)
            setattr(self._built, kind, statement)
        return statement


def selection(build: Callable[[], QuerySet[M]]) -> Selection[M]:
    """Decorates a function that returns the query set."""
    return cast(Selection[M], Selection(build))
