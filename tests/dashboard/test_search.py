"""What a text can mean, for the search page and the palette: all kinds, exact ids first, by role, bounded."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.utils import timezone

from boilerhouse.dashboard.templatetags.ui import short
from pools.models import Pool
from syncing.models import SyncRun
from tenants.models import Assignment, Tenant
from tests.make import make_container, make_pool, make_sync_spec, make_workload
from tests.pages import text_of

pytestmark = [pytest.mark.any_database, pytest.mark.django_db]
PALETTE = {"HX-Request": "true", "HX-Target": "palette-list"}


def member(client: Any, role: str) -> Any:
    user = User.objects.create_user(f"{role}-1", is_staff=True)
    user.groups.add(Group.objects.get_or_create(name=role)[0])
    client.force_login(user)
    return client


@pytest.fixture
def admin(client, data_dir):
    client.force_login(User.objects.create_superuser("ada"))
    return client


def options(client: Any, text: str) -> list[tuple[str, str]]:
    """The name and the detail of each option of the palette, in order."""
    answer = client.get("/search", {"q": text}, headers=PALETTE)
    assert answer.status_code == 200
    found = re.findall(r'class="palette-n">(.*?)</span> <span class="palette-d">(.*?)</span>', text_of(answer))
    return [(name, detail) for name, detail in found]


def held(tenant: str, pool: Pool, state: str = "assigned") -> Assignment:
    container = make_container(pool, state="claimed")
    return Assignment.objects.create(
        tenant=Tenant.objects.create(id=tenant), pool=pool, generation=1, state=state, deadline=timezone.now(),
        container=container, container_ref=container.pk, version=container.version, was_assigned=True,
    )  # fmt: skip


def test_every_kind_is_found_and_the_exact_one_is_first(admin):
    """C22: workloads were not searched, and an exact pool hid the workload and the spec of its name."""
    pool = make_pool("notes", workload=make_workload("notes"))
    make_pool("a-notes-archive", workload=make_workload("other"))
    make_sync_spec(pool, id="notes")
    Tenant.objects.create(id="my-notes")
    found = options(admin, "notes")
    assert [detail.partition(",")[0] for _, detail in found[:3]] == ["Pool", "Workload", "Sync spec"]
    assert [name for name, _ in found[:3]] == ["notes"] * 3
    assert {name for name, _ in found[3:]} == {"a-notes-archive", "my-notes"}


def test_several_exact_ones_are_listed_and_a_single_one_is_opened(admin):
    make_pool("notes", workload=make_workload("notes"))
    listed = admin.get("/search", {"q": "notes"})
    assert listed.status_code == 200
    assert {"/pools/notes/", "/workloads/notes/"} <= set(re.findall(r'href="([^"]*)"', listed.content.decode()))
    Tenant.objects.create(id="acme-042")
    Tenant.objects.create(id="acme-0421")
    assert admin.get("/search", {"q": "acme-042"})["Location"] == "/tenants/acme-042/"


def test_what_begins_with_the_text_comes_before_what_contains_it(admin):
    for name in ("xx-acme", "acme-2", "zz-acme"):
        Tenant.objects.create(id=name)
    assert [name for name, _ in options(admin, "acme")] == ["acme-2", "xx-acme", "zz-acme"]


def test_a_container_by_its_end_its_engine_id_its_address_and_a_run_by_its_id(admin):
    pool = make_pool("notes")
    container = make_container(pool, address="10.117.0.9", runtime_id="ab12cd34ef")
    name = short(str(container.pk))
    for text in (name, name.removeprefix("c-"), str(container.pk), "ab12cd", "10.117.0.9"):
        assert name in [found for found, _ in options(admin, text)], text
    run = SyncRun.objects.create(
        spec=make_sync_spec(pool), tenant_id="a", generation=1, direction="upload", trigger="manual"
    )
    assert options(admin, str(run.pk)) == [("upload of a", "Sync run, queued")]


def test_pages_are_found_by_other_words_and_by_role(client, data_dir):
    operator = member(client, "operator")
    assert ("Changes", "Page") not in options(operator, "audit")
    assert ("New pool", "Page") in options(operator, "create po")
    assert ("Activity", "Page") in options(operator, "events")
    member(client, "admin")
    assert ("Changes", "Page") in options(client, "audit")
    member(client, "viewer")
    assert options(client, "new pool") == []


def test_actions_name_their_object_and_only_what_is_possible_now(admin):
    notes, _ = make_pool("notes"), make_pool("notebooks")
    held("acme-042", notes)
    held("acme-007", notes, "release_failed")
    assert [name for name, _ in options(admin, "pause not")] == ["Pause refill of notebooks", "Pause refill of notes"]
    Pool.objects.filter(pk="notes").update(is_paused=True)
    assert [name for name, _ in options(admin, "pause not")] == ["Pause refill of notebooks"]
    assert [name for name, _ in options(admin, "release acme")] == ["Release acme-042"]
    assert [name for name, _ in options(admin, "retry acme")] == ["Retry save of acme-007"]
    assert [name for name, _ in options(admin, "theme dark")] == ["Theme: dark"]


def test_each_action_leads_to_what_does_it(admin):
    """A question where others feel it; a form with its values where it can be repeated."""
    held("acme-042", make_pool("notes"))
    ways = {}
    for text in ("release acme", "pause notes", "theme dark", "claim notes", "save acme"):
        page = text_of(admin.get("/search", {"q": text}, headers=PALETTE))
        [ways[text]] = re.findall(r'data-do="(\w+)" data-url="([^"]*)" data-fields="([^"]*)"', page)
    assert ways == {
        "release acme": ("ask", "/tenants/acme-042/release", "{}"),
        "pause notes": ("post", "/pools/notes/pause", "{}"),
        "theme dark": ("post", "/theme", "{&quot;theme&quot;: &quot;dark&quot;}"),
        "claim notes": ("go", "/pools/notes/claim", "{}"),
        "save acme": ("go", "/tenants/acme-042/sync", "{}"),
    }
    for do, url, _ in ways.values():
        if do != "post":
            assert admin.get(url).status_code == 200, url


def test_who_may_not_operate_is_offered_no_action_but_the_theme(client, data_dir):
    held("acme-042", make_pool("notes"))
    viewer = member(client, "viewer")
    assert options(viewer, "release acme") == []
    assert options(viewer, "pause notes") == []
    assert options(viewer, "theme light") == [("Theme: light", "Action")]


def test_without_scripts_the_page_answers_the_same(admin):
    held("acme-042", make_pool("notes"))
    page = text_of(admin.get("/search", {"q": "pause notes"}))
    assert '<form class="inline" method="post" action="/pools/notes/pause">' in page
    assert 'method="get" action="/tenants/acme-042/release" data-ask' in text_of(
        admin.get("/search", {"q": "release a"})
    )
    assert 'No results for <b class="mono">zzz</b>.' in text_of(admin.get("/search", {"q": "zzz"}))


def test_the_palette_answers_304_while_nothing_has_changed(admin):
    make_pool("notes")
    first = admin.get("/search", {"q": "notes"}, headers=PALETTE)
    again = admin.get("/search", {"q": "notes"}, headers={**PALETTE, "If-None-Match": first["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    make_pool("notes-2")
    changed = admin.get("/search", {"q": "notes"}, headers={**PALETTE, "If-None-Match": first["ETag"]})
    assert changed.status_code == 200


@pytest.mark.parametrize("text", ["", "\0", "%", "_" * 300, "c-", "<script>", "'", "99999999-9999", "::", "1.2.3.400"])
def test_odd_text_is_answered(admin, text):
    make_pool("notes")
    assert admin.get("/search", {"q": text}, headers=PALETTE).status_code == 200
    assert (
        "<script>"
        not in admin.get("/search", {"q": text}).content.decode().partition("<h1>")[2].partition("</main>")[0]
    )


def test_many_rows_cost_neither_more_queries_nor_more_options(admin, django_assert_max_num_queries):
    pool = make_pool("notes")
    Tenant.objects.bulk_create(Tenant(id=f"acme-{number}") for number in range(500))
    for number in range(30):
        make_pool(f"notes-{number}", workload=pool.workload)
    with django_assert_max_num_queries(30):
        found = options(admin, "acme")
    assert len(found) == 6
    assert len([one for one in options(admin, "notes") if one[1].startswith("Pool")]) == 6


def test_what_is_typed_needs_a_session(client, data_dir):
    assert client.get("/search", {"q": "a"}, headers=PALETTE).status_code == 302
