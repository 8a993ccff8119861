"""What tenants used: the page of a month, its files, the API, and a tenant's own page."""

from __future__ import annotations

import csv
import io
from datetime import date

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from boilerhouse.core import tenant_usage
from boilerhouse.core.tenant_usage import Amounts
from syncing.models import SavedState
from tests.api_calls import problem
from tests.make import make_held
from tests.pages import text_of

HOUR = 3_600_000
OCTOBER = date(2026, 10, 1)


@pytest.fixture
def admin(client, db, data_dir):
    client.force_login(User.objects.create_superuser("ada"))
    return client


def use(tenant: str, day: date, hours: float, **more: int) -> None:
    tenant_usage.add({(tenant, day): Amounts(held_ms=round(hours * HOUR), **more)})


def rows_of(answer) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(answer.content.decode())))


def test_who_used_the_most_comes_first_and_each_column_sorts_all_tenants(admin):
    for n in range(60):
        use(f"t{n:02}", date(2026, 10, 1 + n % 28), hours=n + 1, cpu_ns=(60 - n) * 10**9)
    page = admin.get("/usage/?month=2026-10").content.decode()
    assert page.index(">t59<") < page.index(">t58<") < page.index(">t10<")
    assert ">t00<" not in page
    assert "1 to 50 of 60" in page

    by_cpu = admin.get("/usage/?month=2026-10&sort=-cpu").content.decode()
    assert by_cpu.index(">t00<") < by_cpu.index(">t01<")
    assert ">t59<" not in by_cpu


def test_filters_keep_the_month(admin):
    use("alice", OCTOBER, 1)
    page = admin.get("/usage/?month=2026-10&q=ali").content.decode()
    assert ">alice<" in page
    assert '<input type="hidden" name="month" value="2026-10">' in page
    assert 'href="?month=2026-10">Clear all' in page


@pytest.mark.parametrize("month", ["2026-13", "2026-1", "x", "%00", "2026-10-01", "0000-01", "٢٠٢٦-10"])
def test_what_is_no_month_is_404_with_a_way_on(admin, month):
    assert admin.get(f"/usage/?month={month}").status_code == 404


def test_a_month_without_use_and_one_that_has_not_begun(admin):
    assert "No tenant had a container in this month." in text_of(admin.get("/usage/?month=2025-01"))
    assert "2025-02" in text_of(admin.get("/usage/?month=2025-01"))
    assert "2099-02" not in text_of(admin.get("/usage/?month=2099-01"))


def test_the_file_of_a_month_has_all_tenants_and_that_by_day_all_days(admin, monkeypatch):
    for n in range(120):
        use(f"t{n}", OCTOBER, hours=1, sent_bytes=n, memory_byte_s=3600 * 10**9)
        use(f"t{n}", date(2026, 10, 31), hours=2)
    use("t0", date(2026, 11, 1), hours=9)
    rows = rows_of(admin.get("/usage/?month=2026-10&format=csv"))
    assert len(rows) == 120
    assert {(row["heldHours"], row["memoryGbHours"]) for row in rows} == {("3.0", "1.0")}

    days = rows_of(admin.get("/usage/?month=2026-10&by=day&format=csv"))
    assert len(days) == 240
    assert {(row["start"], row["heldHours"]) for row in days if row["tenantId"] == "t7"} == {
        ("2026-10-01", "1.0"), ("2026-10-31", "2.0"),
    }  # fmt: skip


def test_a_file_of_more_tenants_than_other_lists_have_is_not_cut(admin, monkeypatch):
    """An invoice that leaves out tenants is wrong."""
    monkeypatch.setattr("boilerhouse.dashboard.exports.MAX_ROWS", 10)
    for n in range(30):
        use(f"t{n}", OCTOBER, hours=1)
    assert len(rows_of(admin.get("/usage/?month=2026-10&format=csv"))) == 30


def test_a_tenants_page_has_its_month_and_each_of_its_days(admin):
    held = make_held(tenant="alice")
    today = tenant_usage.day_of(timezone.now())
    use("alice", today, 1.5, cpu_ns=2 * 3600 * 10**9, memory_byte_s=3 * 3600 * 10**9, sent_bytes=7_000_000)
    use("bob", today, 77)
    SavedState.objects.create(
        tenant_id="alice", place="p", location="l", container_path="/state", pool_id=held.pool_id, generation=1,
        run_id=held.pk, files=1, bytes=5_000_000,
    )  # fmt: skip
    page = text_of(admin.get("/tenants/alice/"))
    for words in ("<dd>1.50</dd>", "<dd>2.00</dd>", "3.00 GB-hours", "7.0 MB", "5.0 MB", "By day"):
        assert words in page
    assert "77" not in page.split("Used in")[1].split("</section>")[0]


def test_the_api_lists_a_month_or_its_days(call):
    use("alice", OCTOBER, 1, cpu_ns=5_000_000)
    use("alice", date(2026, 10, 2), 2)
    use("bob", OCTOBER, 1)
    months = call("GET", "usage?month=2026-10").json()
    assert [(one["tenantId"], one["heldMs"]) for one in months["items"]] == [("bob", HOUR), ("alice", 3 * HOUR)]
    days = call("GET", "usage?month=2026-10&by=day&tenantId=alice").json()["items"]
    assert {(one["start"], one["heldMs"], one["cpuMs"]) for one in days} == {
        ("2026-10-01", HOUR, 5), ("2026-10-02", 2 * HOUR, 0),
    }  # fmt: skip
    assert call("GET", "usage").json()["items"] == []


@pytest.mark.parametrize("query", ["month=2026-13", "month=", "by=week", "day=2026-10-01"])
def test_the_api_refuses_what_it_does_not_know(call, query):
    assert problem(call("GET", f"usage?{query}"), 422)


def test_the_api_pages_through_all_tenants(call):
    for n in range(5):
        use(f"t{n}", OCTOBER, 1)
    seen, cursor = [], ""
    while True:
        answer = call("GET", f"usage?month=2026-10&limit=2{cursor}").json()
        seen += [one["tenantId"] for one in answer["items"]]
        if answer["nextCursor"] is None:
            break
        cursor = f"&cursor={answer['nextCursor']}"
    assert sorted(seen) == [f"t{n}" for n in range(5)]


def test_the_navigation_says_that_usage_is_of_tenants(admin):
    nav = text_of(admin.get("/usage/")).split('id="nav"')[1].split("</nav>")[0]
    assert 'href="/tenants/" title="Tenants" aria-current="page"' in nav
    assert nav.count("aria-current") == 1
