"""All known tenants: segments, columns, search, sort and pages by the server."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from syncing.models import SavedState
from tenants.models import Tenant
from tenants.states import AssignmentState
from tests.make import make_assignment, make_held, make_pool
from tests.pages import text_of


@pytest.fixture
def operator(client, db, data_dir):
    client.force_login(User.objects.create_superuser("ada"))
    return client


def save(tenant: str, size: int, minutes: int = 5, location: str = "l") -> None:
    SavedState.objects.create(
        tenant_id=tenant, place="p", location=f"{location}/{tenant}", container_path="/state", pool_id="p", generation=1,
        run_id="0" * 32, files=1, bytes=size, saved_at=timezone.now() - timedelta(minutes=minutes),
    )  # fmt: skip


def released(tenant: str, pool=None, days: float = 1, **over) -> None:
    at = timezone.now() - timedelta(days=days)
    values = {"state": "ended", "was_assigned": True, "outcome": "released", "ended_at": at, "assigned_at": at}
    make_assignment(tenant, pool=pool or make_pool(), **{**values, **over})
    Tenant.objects.filter(pk=tenant).update(seen_at=at)


def names(answer) -> list[str]:
    return re.findall(r'<tr id="t-([^"]*)"', answer.content.decode())


def row_of(answer, tenant: str) -> str:
    return text_of(answer).split(f'id="t-{tenant}"')[1].split("</tr>")[0]


@pytest.fixture
def everybody(db, data_dir):
    pool = make_pool("notes", idle_timeout_ms=3_600_000)
    make_held(pool, "holder", minutes=10)
    make_assignment("waiter", pool=pool)
    make_assignment("stuck", pool=pool, state="release_failed", was_assigned=True, outcome_detail="403 from the sink")
    released("gone", pool)
    released(
        "failed", pool, was_assigned=False, outcome="restore_failed", outcome_detail="No such bucket", assigned_at=None
    )
    Tenant.objects.create(id="never")
    save("gone", 3_000_000)
    save("gone", 1_000_000, minutes=3, location="other")


@pytest.mark.parametrize(
    ("show", "expected"),
    [
        ("", {"holder", "waiter", "stuck", "gone", "failed", "never"}), ("holding", {"holder", "waiter"}),
        ("unsaved", {"stuck"}), ("released", {"gone", "failed", "never"}), ("nonsense", {"holder", "waiter", "stuck", "gone", "failed", "never"}),
    ],
)  # fmt: skip
def test_each_segment_has_its_tenants(operator, everybody, show, expected):
    assert set(names(operator.get(f"/tenants/?show={show}"))) == expected


def test_each_tenant_says_how_it_is(operator, everybody):
    page = operator.get("/tenants/")
    for tenant, words in {
        "holder": ["Assigned", "notes", "in 59 min"], "stuck": ["Not saved", "403 from the sink"],
        "gone": ["Released", "4.0 MB", "3 min ago", "notes"], "failed": ["Claim failed", "No such bucket"],
        "never": ["Released", "none"], "waiter": ["Claiming"],
    }.items():  # fmt: skip
        for word in words:
            assert word in row_of(page, tenant), (tenant, word)
    assert "never" in row_of(page, "holder"), "nothing was saved yet"


def test_the_tabs_count_and_keep_the_other_filters(operator, everybody):
    page = text_of(operator.get("/tenants/?q=e&pool=notes"))
    assert "2 in use, 1 not saved." in page
    assert 'href="?q=e&amp;pool=notes&amp;show=released"' in page


def test_filters_and_search_are_of_all_tenants(operator, everybody):
    other = make_pool("other")
    make_held(other, "elsewhere")
    assert set(names(operator.get("/tenants/?show=holding&pool=notes"))) == {"holder", "waiter"}
    assert set(names(operator.get("/tenants/?show=released&pool=notes"))) == {"gone", "failed"}
    assert names(operator.get("/tenants/?state=pending")) == ["waiter"]
    assert names(operator.get("/tenants/?q=OLD")) == ["holder"]
    assert names(operator.get("/tenants/?q=_")) == [], "a wildcard of the database is a character"


@pytest.mark.parametrize(("sort", "first"), [("-size", "t59"), ("size", "t00"), ("-saved", "t00"), ("tenant", "t00")])
def test_sorting_is_over_all_pages(operator, sort, first):
    now = timezone.now()
    Tenant.objects.bulk_create(
        Tenant(id=f"t{n:02}", seen_at=now, saved_bytes=n, saved_at=now - timedelta(minutes=n)) for n in range(60)
    )
    page = operator.get(f"/tenants/?sort={sort}")
    assert names(page)[0] == first
    assert "1 to 50 of 60" in text_of(page)
    assert len(names(operator.get(f"/tenants/?sort={sort}&page=2"))) == 10


def test_who_was_seen_last_comes_first(operator):
    for n, tenant in enumerate(("old", "older", "oldest")):
        released(tenant, days=n + 1)
    make_held(tenant="now")
    assert names(operator.get("/tenants/")) == ["now", "old", "older", "oldest"]


def test_a_page_takes_the_same_queries_however_many_tenants(operator, django_assert_max_num_queries):
    pool = make_pool()
    counted = []
    operator.get("/tenants/")  # the badge of overdue saves is kept for a while
    for number in (3, 40):
        for n in range(number):
            make_held(pool, f"held{number}-{n}")
            released(f"gone{number}-{n}", pool)
            save(f"gone{number}-{n}", 5)
        with django_assert_max_num_queries(25) as queries:
            assert operator.get("/tenants/").status_code == 200
        counted.append(len(queries))
    assert counted[0] == counted[1]


def test_a_viewer_selects_nothing(client, everybody):
    client.force_login(User.objects.create_user("vera", is_staff=True))
    page = client.get("/tenants/").content.decode()
    assert "checkbox" not in page.split("<main")[1].split("</main>")[0]
    assert "Release all" not in page
    assert 'href="/usage/"' not in page


def test_the_page_of_who_released_says_how_much_is_saved_where_and_how_the_claims_went(operator, everybody):
    pool = make_pool("big")
    row = make_held(pool, "gone", minutes=200)
    type(row).objects.filter(pk=row.pk).update(
        state="ended", outcome="released", reason="idle", ended_at=timezone.now(), held_until=timezone.now(),
        endpoints=[{"name": "http", "host": "10.9.8.7", "port": 80}],
    )  # fmt: skip
    page = text_of(operator.get("/tenants/gone/"))
    for words in (
        "inactive for longer than its pool allows", "4.0 MB", "l/gone", "other/gone", "Previous claims", "3 h 20 min",
        f'href="/containers/{row.container_ref}/"', "big", "its state is at the sink",
    ):  # fmt: skip
        assert words in page
    assert "10.9.8.7" not in page


def test_a_failed_save_shows_no_endpoint_of_the_container_that_is_gone(operator, everybody):
    row = make_held(tenant="broken")
    type(row).objects.filter(pk=row.pk).update(
        state=AssignmentState.RELEASE_FAILED, container=None, endpoints=[{"name": "http", "host": "10.9.8.7", "port": 80}],
        outcome="denied", outcome_detail="403",
    )  # fmt: skip
    assert "10.9.8.7" not in operator.get("/tenants/broken/").content.decode()


def test_events_are_told_by_claim(operator):
    from boilerhouse.core.events import emit, recording
    from boilerhouse.core.models import Event

    make_held(tenant="alice")
    with recording():
        emit("container.released", tenant_id="alice", outcome="released")
        emit("sync.completed", tenant_id="alice", direction="upload")
    Event.objects.filter(type="container.released").update(created_at=timezone.now() - timedelta(days=9))
    page = text_of(operator.get("/tenants/alice/")).split('id="timeline-h"')[1]
    assert page.index("in progress") < page.index("Saved") < page.index("Earlier") < page.index("was released from")


def test_a_pool_lists_who_uses_it_now_or_used_it_last_and_nobody_who_is_elsewhere(operator, everybody):
    other = make_pool("other")
    released("moved", other)
    make_held(make_pool("third"), "moved")
    released("rested", other)
    assert set(names(operator.get("/tenants/?pool=other"))) == {"rested"}
    assert set(names(operator.get("/tenants/?pool=third"))) == {"moved"}


@pytest.mark.parametrize(
    ("query", "number"),
    [("", 3), ("show=holding", 2), ("show=unsaved", 1), ("show=released", 0), ("pool=notes", 3), ("q=old", 1), ("state=pending", 1),
     ("pool=nonsense", 3), ("state=nonsense", 3)],
)  # fmt: skip
def test_the_release_of_all_is_of_those_that_the_list_has(operator, everybody, query, number):
    make_pool("empty")
    page = text_of(operator.get(f"/tenants/?{query}"))
    assert (f"Release all {number}" in page) == bool(number)
    question = operator.get(f"/releases/?all=1&{query}")
    assert ("Release" in text_of(question) and question.status_code == 200) == bool(number)
    assert operator.get("/releases/?all=1&pool=empty").status_code == 303
