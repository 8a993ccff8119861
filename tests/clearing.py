"""An empty database after each test that commits.

Django's ``flush`` also deletes permissions and groups and makes them again, which takes longer than most tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.apps import apps
from django.db import connection, transaction
from django.test import TransactionTestCase

BY_MIGRATE = ("django_content_type", "auth_permission", "auth_group", "auth_group_permissions")
"""The tables that ``migrate`` fills."""


def _tables() -> list[str]:
    models = apps.get_models(include_auto_created=True)
    return sorted({one._meta.db_table for one in models if one._meta.managed and not one._meta.proxy} - set(BY_MIGRATE))


def _rows_of_migrate() -> list[list[Any]]:
    with connection.cursor() as cursor:
        rows = []
        for table in BY_MIGRATE:
            cursor.execute(f"SELECT * FROM {table} ORDER BY id")
            rows.append(cursor.fetchall())
    return rows


def clear() -> None:
    """All tables are empty except those that ``migrate`` fills; those are unchanged."""
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(f"SELECT '{one}' WHERE EXISTS (SELECT 1 FROM {one})" for one in _tables()))
        tables = [name for (name,) in cursor.fetchall()]
    with transaction.atomic(), connection.cursor() as cursor:
        for table in tables:  # in any order: foreign keys are looked at when the transaction ends
            cursor.execute(f"DELETE FROM {table}")


@contextmanager
def quick_clearing() -> Iterator[None]:
    """Within the block, a test that commits is followed by ``clear``, or by ``flush`` if it changed the rows of
    ``migrate``."""
    flush: Callable[[TransactionTestCase], None] = TransactionTestCase._fixture_teardown  # type: ignore[attr-defined]
    expected = _rows_of_migrate()

    def teardown(case: TransactionTestCase) -> None:
        nonlocal expected
        if _rows_of_migrate() == expected:
            clear()
        else:
            flush(case)
            expected = _rows_of_migrate()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", teardown)
        yield
