"""The history of sync runs: by day, in a range, in any order, and standing still."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from boilerhouse.dashboard import run_history
from syncing.models import SyncRun, SyncSpec
from tests.make import make_sync_spec
from tests.pages import text_of

REFRESH = {"HX-Request": "true", "HX-Target": "main"}
NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)


@pytest.fixture
def staff(client, db, data_dir):
    client.force_login(User.objects.create_superuser("ada", password="a long password"))
    return client


@pytest.fixture
def spec(staff) -> SyncSpec:
    return make_sync_spec(id="notes-sync")


def ended(spec: SyncSpec, hours_ago: float, tenant: str = "acme", **more: Any) -> UUID:
    at = NOW - timedelta(hours=hours_ago)
    values = {"state": "succeeded", "direction": "upload", "trigger": "interval", "progress": {"bytes": 5, "files": 1}}
    values |= {"created_at": at, "started_at": at - timedelta(seconds=1), "finished_at": at}
    return SyncRun.objects.create(spec=spec, tenant_id=tenant, generation=1764338400123456, **{**values, **more}).pk


def rows_of(answer: Any) -> list[UUID]:
    return [UUID(pk) for pk in re.findall(r'id="run-([0-9a-f-]{36})"', answer.content.decode())]


def test_runs_are_under_their_days_and_in_ranges(staff, spec, monkeypatch):
    monkeypatch.setattr("boilerhouse.dashboard.time_ranges.timezone.now", lambda: NOW)
    runs = {hours: ended(spec, hours) for hours in (0.5, 3, 20, 50)}

    def listed(query: str) -> list[float]:
        hours = {pk: ago for ago, pk in runs.items()}
        return [hours[pk] for pk in rows_of(staff.get(f"/sync/{query}"))]

    assert listed("") == [0.5, 3, 20, 50]
    assert listed("?period=hour") == [0.5]
    assert listed("?period=today") == [0.5, 3]
    assert listed("?period=yesterday") == [20]
    assert listed("?from=2026-11-26&to=2026-11-28") == [20, 50]
    assert listed("?range=1h") == [0.5, 3, 20, 50], "the range of the charts is not that of the history"
    page = text_of(staff.get("/sync/?period=week"))
    assert re.findall(r'colspan="9">([^<]+)<', page) == [
        "Today, Saturday 28 November", "Yesterday, Friday 27 November", "Thursday 26 November",
    ]  # fmt: skip
    assert "time: 7 days" in page
    assert "?period=week&amp;range=6h" in page
    assert "1764338400123456" not in page
    monkeypatch.undo()
    assert len(staff.get("/sync/?from=2026-11-26&to=2026-11-28&format=csv").content.decode().splitlines()) == 3


def test_every_column_sorts_and_only_the_order_of_time_has_days(staff, spec):
    small = ended(spec, 1, "zoe", progress={"bytes": 10, "files": 9, "sentBytes": 0}, trigger="manual", deleted=3)
    large = ended(spec, 2, "ann", progress={"bytes": 9_000, "files": 1, "sentBytes": 700}, state="failed")
    no_start = ended(spec, 3, "bob", progress={}, state="cancelled", started_at=None)
    SyncRun.objects.filter(pk=large).update(started_at=NOW - timedelta(hours=3))
    orders = {
        "sent": [small, large, no_start], "size": [small, large, no_start], "files": [large, small, no_start],
        "duration": [small, large, no_start], "tenant": [large, no_start, small], "result": [no_start, large, small],
        "-ended": [small, large, no_start], "ended": [no_start, large, small], "-deleted": [small, no_start, large],
    }  # fmt: skip
    for sort, expected in orders.items():
        answer = staff.get(f"/sync/?sort={sort}")
        assert set(rows_of(answer)) == set(expected)
        if "deleted" not in sort:
            assert rows_of(answer) == expected, sort
        assert ('class="day"' in text_of(answer)) == sort.endswith("ended"), sort
    assert rows_of(staff.get("/sync/?sort=-deleted"))[0] == small


def test_other_orders_are_those_of_the_newest_runs(staff, spec, monkeypatch):
    monkeypatch.setattr(run_history, "SORTED", 2)
    runs = [ended(spec, hours, progress={"bytes": 1000 * hours}) for hours in (1, 2, 3)]
    assert rows_of(staff.get("/sync/?sort=-size")) == [runs[1], runs[0]]
    assert rows_of(staff.get("/sync/")) == runs


def test_an_open_history_stands_still_and_its_pages_do_not_shift(staff, spec):
    runs = [ended(spec, hours) for hours in range(1, 121)]
    first = staff.get("/sync/")
    assert rows_of(first) == runs[:50]
    text = first.content.decode().replace("&amp;", "&")
    refresh = re.search(r'hx-get="([^"]+)"', text)
    older = re.search(r'href="(\?[^"]*page=2[^"]*)">Next', text)
    assert refresh
    assert older
    new = ended(spec, 0.5)
    ended(spec, 0.4, state="failed")
    answer = staff.get(refresh[1], headers=REFRESH)
    assert rows_of(answer) == []
    assert "2 updates, show" in text_of(answer)
    assert '<div id="journal" data-keep>' in text_of(answer)
    assert rows_of(staff.get(f"/sync/{older[1]}")) == runs[50:100]
    assert new in rows_of(staff.get("/sync/"))
    failed = staff.get(refresh[1].replace("?", "?state=failed&"), headers=REFRESH)
    assert "1 update, show" in text_of(failed)


@pytest.mark.parametrize("junk", [
    "seen=x", "until=x", "until=2026-13-99T00:00", "seen=0001-01-01T00:00:00%2B00:00", "until=%00", "sort=evil", "period=x",
    "page=-1", "until=2026-11-28T00:00",
])  # fmt: skip
def test_places_that_do_not_exist_are_ignored(staff, spec, junk):
    ended(spec, 1)
    assert staff.get(f"/sync/?{junk}").status_code == 200
    assert staff.get(f"/sync/?{junk}", headers=REFRESH).status_code == 200
    assert len(rows_of(staff.get(f"/sync/?{junk}"))) == 1


def test_who_asked_for_a_run_is_said_and_found(staff, spec):
    mine = ended(spec, 1, trigger="manual", asked_by="user zoe")
    ended(spec, 2)
    page = text_of(staff.get("/sync/?q=zoe"))
    assert rows_of(staff.get("/sync/?q=zoe")) == [mine]
    assert "by user zoe" in page
    assert "manual, by user zoe" in text_of(staff.get(f"/sync/runs/{mine}/"))


def test_a_page_costs_few_statements(staff, spec, django_assert_max_num_queries):
    for hours in range(60):
        ended(spec, hours, f"t{hours}")
    for query in ("", "?sort=-size", "?period=week&q=t1"):
        with django_assert_max_num_queries(30):
            staff.get(f"/sync/{query}")


def test_the_clock_of_the_reader_is_used(staff, spec):
    at = timezone.now()
    ended(spec, 0, finished_at=at, created_at=at)
    assert "Today, " in text_of(staff.get("/sync/"))
