"""Queries that are built once do what query sets do."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from boilerhouse.core import compiled
from boilerhouse.core.ids import uuid7
from boilerhouse.core.models import Lease, QueueHealth

pytestmark = [pytest.mark.any_database, pytest.mark.django_db]


def lease_of(name: str) -> compiled.Compiled:
    return compiled.update(Lease.objects.filter(name=name), holder=uuid7(), expires_at=Now() + timedelta(seconds=4))


def test_an_update_changes_what_the_query_set_selects_and_counts_it():
    for name in ("a", "b"):
        Lease.objects.create(name=name, expires_at=Now())
    assert lease_of("a").run() == 1
    assert lease_of("c").run() == 0
    assert [lease.name for lease in Lease.objects.exclude(holder=None)] == ["a"]
    assert Lease.objects.filter(name="a", expires_at__gt=Now() + timedelta(seconds=2)).exists()


def test_a_selection_reads_the_rows_of_the_moment():
    query = compiled.selection(QueueHealth.objects.order_by("name").values_list("name"))
    assert not query.exists()
    for name in ("b", "a"):
        QueueHealth.objects.create(name=name)
    assert query.rows() == [("a",), ("b",)]
    assert query.exists()


def test_a_query_is_built_once_for_each_argument():
    built = []

    @compiled.cached
    def of_name(name: str) -> compiled.Compiled:
        built.append(name)
        return compiled.selection(QueueHealth.objects.filter(name=name).values_list("name"))

    QueueHealth.objects.create(name="a")
    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert [of_name(name).rows() for name in ("a", "b", "a", "b")] == [[("a",)], [], [("a",)], []]
    assert built == ["a", "b"]
    assert len(queries) == 4
