"""All containers: filters, order, pages that do not shift, use, and the removal of many."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from django.contrib.auth.models import Group, User
from django.utils import timezone

from boilerhouse.dashboard import container_removals, container_rows, keyset_listing
from pools.errors import Starting
from pools.models import Container, ContainerUsage
from tenants.models import Assignment
from tests.make import make_container, make_held, make_pool, make_sync_spec
from tests.pages import text_of

pytestmark = pytest.mark.any_database
IDS = re.compile(r'<tr\s+id="c-([0-9a-f-]{36})"')
TYPED = re.compile(r'data-typed="([^"]*)"')


@pytest.fixture
def operator(client, db, data_dir):
    user = User.objects.create_user("olga", is_staff=True)
    user.groups.add(Group.objects.get_or_create(name="operator")[0])
    client.force_login(user)
    return client


def ids(answer: Any) -> list[str]:
    assert answer.status_code == 200
    return IDS.findall(answer.content.decode())


def test_containers_of_all_pools_are_filtered_by_pool_state_and_tenant(operator):
    notes, other = make_pool("notes"), make_pool("other")
    idle = make_container(notes)
    held = make_held(other, "alice").container
    assert set(ids(operator.get("/containers/"))) == {str(idle.pk), str(held.pk)}
    for query, wanted in (("pool=notes", idle), ("state=claimed", held), ("tenant=alice", held), ("q=alic", held)):
        assert ids(operator.get(f"/containers/?{query}")) == [str(wanted.pk)], query
    page = text_of(operator.get("/containers/?pool=none&state=idle&tenant=bob"))
    assert "No containers match these filters." in page


def test_rows_show_the_last_sample_and_none_that_is_old(operator):
    container = make_container(make_pool(), disk_bytes=7_000_000)
    for minutes, cores, memory in ((60, 9.0, 9_000_000), (0, 0.25, 5_000_000)):
        at = timezone.now() - timedelta(minutes=minutes)
        values = {"cpu_ns": 1, "cores": cores, "memory_bytes": memory, "pids": 1, "at": at}
        ContainerUsage.objects.create(container_id=container.pk, **values)
    page = text_of(operator.get("/containers/"))
    assert "0.25" in page
    assert "5.0 MB" in page
    assert "7.0 MB" in page
    ContainerUsage.objects.filter(cores=0.25).delete()
    assert "9.0 MB" not in text_of(operator.get("/containers/"))


def walk(operator: Any, url: str, name: str) -> list[list[str]]:
    """The pages from this one on, by their links."""
    pages = []
    while url:
        answer = operator.get(url)
        pages.append(ids(answer))
        found = re.search(rf'class="btn sm" href="([^"]*)">{name}<', answer.content.decode())
        url = f"/containers/{found[1].replace('&amp;', '&')}" if found else ""
    return pages


@pytest.mark.parametrize("sort", [name for one in container_rows.SORTS for name in (one, f"-{one}")])
def test_pages_of_every_order_hold_each_row_once_and_lead_back(operator, monkeypatch, sort):
    monkeypatch.setattr(keyset_listing, "PER_PAGE", 2)
    monkeypatch.setattr(keyset_listing.KeysetListing.__init__, "__kwdefaults__", {"per_page": 2})
    pool, other = make_pool("notes"), make_pool("other")
    for number in range(4):
        one = make_container(pool, disk_bytes=number * 10 or None)
        use = {"cpu_ns": 1, "cores": 0.1 * number, "memory_bytes": number, "pids": 1}
        if number % 2:
            ContainerUsage.objects.create(container_id=one.pk, at=timezone.now(), **use)
    make_held(other, "alice")
    forward = walk(operator, f"/containers/?sort={sort}", "Next")
    seen = [pk for page in forward for pk in page]
    assert len(seen) == len(set(seen)) == 5
    assert [len(page) for page in forward] == [2, 2, 1]
    answer = operator.get(f"/containers/?sort={sort}")
    last = operator.get(f"/containers/?{urlencode({'sort': sort})}")
    assert ids(answer) == ids(last) == forward[0]


def test_a_page_does_not_shift_when_rows_before_it_come_and_go(operator, monkeypatch):
    monkeypatch.setattr(keyset_listing.KeysetListing.__init__, "__kwdefaults__", {"per_page": 2})
    pool = make_pool("notes")
    made = sorted(str(make_container(pool).pk) for _ in range(5))  # ids of one millisecond have no order
    first, second, _ = walk(operator, "/containers/?sort=id", "Next")
    assert (first, second) == (made[:2], made[2:4])
    place = json.dumps([made[1], made[1]], separators=(",", ":"))
    Container.objects.filter(pk=made[0]).delete()
    Container.objects.filter(pk=made[1]).delete()
    url = f"/containers/?{urlencode({'sort': 'id', 'after': place})}"
    assert ids(operator.get(url)) == made[2:4]


@pytest.mark.parametrize(
    "place", ["", "x", "[]", "{}", "[1]", '["a","b"]', '[{},"b"]', "[1e999,null]", "\0", "9" * 999]
)
def test_a_place_that_makes_no_sense_is_the_start(operator, place):
    container = make_container(make_pool())
    for name in ("after", "before"):
        for sort in ("id", "age", "-cpu", "tenant", "disk"):
            assert ids(operator.get(f"/containers/?{urlencode({name: place, 'sort': sort})}")) in (
                [str(container.pk)],
                [],
            )


def test_a_list_of_many_costs_no_query_per_row(operator, django_assert_max_num_queries):
    pool = make_pool("notes")
    for number in range(40):
        make_held(pool, f"t-{number}")
    with django_assert_max_num_queries(25):
        assert len(ids(operator.get("/containers/"))) == 40
    with django_assert_max_num_queries(35):
        assert len(ids(operator.get("/pools/notes/"))) == 40


def test_a_viewer_sees_no_actions(client, db, data_dir):
    make_held(make_pool("notes"))
    user = User.objects.create_user("v", is_staff=True)
    user.groups.add(Group.objects.get_or_create(name="viewer")[0])
    client.force_login(user)
    page = client.get("/containers/").content.decode().split('id="main"')[1]
    assert "popovertarget" not in page
    assert 'name="id"' not in page


# Removing many ----------------------------------------------------------------------------------------------------


def asked(operator: Any, **fields: Any) -> str:
    return text_of(operator.get("/containers/remove", fields))


@pytest.mark.parametrize("number", [3, 6])
def test_many_are_asked_for_and_more_than_five_are_typed(operator, number):
    """A6."""
    pool = make_pool("notes")
    make_sync_spec(pool)
    picked = [str(make_held(pool, f"t-{n}").container_ref) for n in range(number)]
    question = asked(operator, id=[*picked, "junk"])
    assert f"Remove {number} containers?" in question
    assert "t-0, t-1, t-2" in question
    assert question.count('name="id"') == number
    assert TYPED.findall(question) == ([str(number)] if number > 5 else [])
    if number > 5:
        page = text_of(operator.post("/containers/remove", {"id": picked}, follow=True))
        assert "Confirmation did not match 6" in page
        assert Assignment.objects.filter(state="releasing").count() == 0
    operator.post("/containers/remove", {"id": picked, "typed": str(number)})
    assert Assignment.objects.filter(state="releasing").count() == number


def test_what_is_lost_is_said_and_typed(operator):
    saved, lost = make_pool("saved"), make_pool("lost")
    make_sync_spec(saved)
    picked = [str(make_held(pool, pool.pk).container_ref) for pool in (saved, lost)]
    question = asked(operator, id=[*picked, str(make_container(saved).pk)])
    assert "The state of 1 tenant is lost" in question
    assert "1 idle container is removed." in question
    assert TYPED.findall(question) == ["3"]


def test_all_that_match_are_removed_and_no_others(operator):
    notes, other = make_pool("notes"), make_pool("other")
    make_sync_spec(notes)
    for number in range(3):
        make_held(notes, f"n-{number}")
    kept = [make_held(other, "o-1").pk, make_container(notes).pk]
    matching = "pool=notes&state=claimed"
    question = asked(operator, all="1", matching=matching, id="junk")
    assert "Remove 3 containers?" in question
    assert f'name="matching" value="{matching.replace("&", "&amp;")}"' in question
    page = text_of(
        operator.post("/containers/remove", {"all": "1", "matching": matching, "asked": "remove"}, follow=True)
    )
    assert "0 of 3 removed." in page
    assert "n-0 is being saved and released." in page
    assert Assignment.objects.get(pk=kept[0]).state == "assigned"
    assert Container.objects.get(pk=kept[1]).state == "idle"


def test_all_of_a_pools_page_are_of_that_pool(operator):
    make_held(make_pool("notes"), "n")
    make_held(make_pool("other"), "o")
    question = asked(operator, all="1", matching="", of="notes")
    assert "Remove 1 container?" in question
    assert "n is disconnected now." in question


def test_what_fails_of_several_is_named_and_not_called_done(operator, monkeypatch):
    from tenants import removals

    pool = make_pool("notes")
    make_sync_spec(pool)
    rows = [make_held(pool, f"many-{number}") for number in range(5)]
    refused, really = {row.container_ref for row in rows[:3]}, removals.begin

    def begin(container_id: Any, **options: Any) -> Any:
        if container_id in refused:
            raise Starting(f"Somebody else was first in {str(container_id)[-4:]}.")
        return really(container_id, **options)

    monkeypatch.setattr(removals, "begin", begin)
    page = text_of(operator.post("/containers/remove", {"id": [str(row.container_ref) for row in rows]}, follow=True))
    assert page.count("Somebody else was first") == 3
    assert "3 not removed." in page
    states = Assignment.objects.filter(tenant__id__startswith="many-").order_by("tenant_id")
    assert [one.state for one in states] == ["assigned"] * 3 + ["releasing"] * 2


def test_what_is_picked_may_be_anything(operator):
    starting = make_container(make_pool(), state="starting")
    for fields in ({"id": ["x", "x" * 36, str(starting.pk)]}, {}, {"all": "1", "matching": "pool=none&state=starting"}):
        page = text_of(operator.post("/containers/remove", fields, follow=True))
        assert "None of the selected containers is idle or claimed. Nothing was removed." in page, fields


def test_results_are_those_of_the_session(operator, client, db):
    key = container_removals.keep({}, [])
    assert "No results are kept" in text_of(operator.get(f"/containers/removals/{key}/"))
