"""The cost of lists and counts does not grow with the tables: counts stop at ten thousand and say so."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from boilerhouse.core.models import Event
from boilerhouse.dashboard import bounded_counts, charts, event_words
from boilerhouse.dashboard.bounded_counts import BoundedPaginator, up_to
from boilerhouse.dashboard.pages import sync
from syncing.models import SyncRun, bytes_moved
from tests.make import make_sync_spec
from tests.pages import text_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(bounded_counts, "MOST", 3)
    Event.objects.bulk_create([Event(type="pool.scaled", actor="system") for _ in range(5)])


def test_counts_are_exact_while_they_are_small():
    assert up_to(Event.objects.all()) == "0"
    Event.objects.bulk_create([Event(type="pool.scaled", actor="system") for _ in range(3)])
    assert up_to(Event.objects.all(), most=3) == "3"
    assert up_to(Event.objects.all(), most=2) == "2+"


def test_pages_end_where_counting_ends_and_say_that_there_is_more(few):
    pages = BoundedPaginator(Event.objects.order_by("-id"), 2)
    assert (pages.count, pages.num_pages, pages.has_more, pages.total) == (3, 2, True, "more than 3")
    newest = Event.objects.latest("id").pk
    assert [event.pk for event in pages.get_page(1)] == [newest, newest - 1]
    Event.objects.filter(pk__gt=newest - 3).delete()
    pages = BoundedPaginator(Event.objects.order_by("-id"), 2)
    assert (pages.has_more, pages.total) == (False, "2")


def test_many_runs_are_said_in_the_plural_and_their_charts_have_lines(monkeypatch, client, django_user_model):
    monkeypatch.setattr("boilerhouse.dashboard.pages.sync.CHARTED", 4)
    client.force_login(django_user_model.objects.create_superuser("root"))
    spec, now = make_sync_spec(), timezone.now()

    def run(minutes: int) -> None:
        at = now - timedelta(minutes=minutes)
        SyncRun.objects.create(
            spec=spec, tenant_id="t", generation=1, direction="upload", trigger="manual", state="succeeded",
            progress={"bytes": 5000}, created_at=at, finished_at=at,
        )  # fmt: skip

    run(5)
    assert "1 run in 24 h." in text_of(client.get("/sync/"))
    for minutes in (10, 15, 300):
        run(minutes)
    text = text_of(client.get("/sync/"))
    assert "4 runs in 24 h." in text
    assert "20.0 kB saved, 0 B restored, in the newest 4 runs" in text
    monkeypatch.setattr("boilerhouse.dashboard.pages.sync.up_to", lambda rows: up_to(rows, most=2))
    assert "2+ runs in 24 h." in text_of(client.get("/sync/"))
    for span in charts.RANGES:
        for chart in sync._charts(span):
            assert [len(line.runs) for line in chart.lines] == [1, 1], (span, chart.title)
            assert chart.gaps == []


def plan_of(rows) -> str:
    with CaptureQueriesContext(
        connection,
    ) as captured:
        list(rows)
    sql = captured.captured_queries[-1]["sql"]
    with connection.cursor() as cursor:
        cursor.execute(
            ("EXPLAIN QUERY PLAN " if connection.vendor == "sqlite" else "EXPLAIN ") + sql.replace("%", "%%")
        )
        return "\n".join(str(row) for row in cursor.fetchall())


@pytest.mark.any_database
@pytest.mark.parametrize("rows", [
    lambda: SyncRun.objects.order_by("-created_at", "-pk")[:51],
    lambda: SyncRun.objects.filter(finished_at__isnull=False).order_by("-finished_at", "-pk")[:50],
    lambda: SyncRun.objects.filter(tenant_id="t", state="succeeded").order_by("-finished_at")[:1],
    lambda: Event.objects.order_by("-id")[:50],
    lambda: Event.objects.filter(is_routine=False)[:50],
    lambda: Event.objects.filter(is_routine=False, pool_id="p")[:50],
    lambda: Event.objects.filter(is_routine=False, tenant_id="t")[:50],
    lambda: Event.objects.filter(container_id="c")[:50],
    lambda: Event.objects.filter(event_words.part("containers"), is_routine=False)[:50],
    lambda: Event.objects.filter(is_routine=True, type="sync.completed", pk__gt=7).order_by("-pk")[:50],
    lambda: Event.objects.filter(created_at__gte=timezone.now()).order_by("created_at")[:1],
], ids=[
    "newest runs", "runs by their end", "a tenant's last save", "newest events", "news", "of a pool", "of a tenant",
    "of a container", "of a part", "unchanged saves", "by time",
])  # fmt: skip
def test_an_index_gives_the_order_of_lists(rows):
    if connection.vendor == "sqlite":
        assert "TEMP B-TREE" not in plan_of(rows())
    else:
        with connection.cursor() as cursor:
            for way in ("seqscan", "bitmapscan", "sort"):
                cursor.execute(f"SET LOCAL enable_{way} = off")
        assert "Sort" not in plan_of(rows())


@pytest.mark.any_database
def test_the_database_adds_up_what_was_moved():
    spec, now = make_sync_spec(), timezone.now()
    for number, progress in enumerate([{"bytes": 5}, {"bytes": 7, "files": 1}, {}, {"bytes": 4_000_000_000}]):
        SyncRun.objects.create(
            spec=spec, tenant_id="t", generation=1, direction="upload", trigger="manual", state="succeeded",
            progress=progress, finished_at=now - timedelta(minutes=number),
        )  # fmt: skip
    assert bytes_moved(SyncRun.objects.all()) == 4_000_000_012
    assert bytes_moved(SyncRun.objects.none()) == 0
