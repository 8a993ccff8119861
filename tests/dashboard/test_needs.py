"""Needs on the pages: the links and buttons of each cause, for each role, and what the buttons do."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.utils import timezone

from boilerhouse.attention import causes, save_causes
from boilerhouse.core import deployment
from boilerhouse.core.models import AuditEntry
from pools.models import Pool
from syncing import credentials
from syncing.models import SyncRun
from tenants.models import Assignment
from tests.make import make_assignment, make_container, make_held, make_node, make_pool, make_sync_spec, make_workload
from tests.pages import text_of

WRONG_KEY = {
    "state": "unhealthy", "code": "denied",
    "detail": "The bucket state at http://s3.example:9000 answered 403 SignatureDoesNotMatch: Check your key.",
}  # fmt: skip


def member(role: str) -> User:
    user = User.objects.create_user(role, password="a long password", is_staff=True)
    user.groups.add(Group.objects.get_or_create(name=role)[0])
    return user


@pytest.fixture
def operator(client, db, data_dir):
    client.force_login(member("operator"))
    return client


@pytest.fixture
def admin(client, db, data_dir):
    client.force_login(User.objects.create_superuser("ada", password="a long password"))
    return client


def unsaved(tenant: str, pool: Pool, spec: Any) -> Assignment:
    row = make_assignment(
        tenant, pool=pool, state="release_failed", outcome="denied", outcome_detail=WRONG_KEY["detail"], step="saving",
        was_assigned=True, attempt=1, directory_node=deployment.node_id(), container_ref=make_container(pool).pk,
    )  # fmt: skip
    SyncRun.objects.create(
        spec=spec, tenant_id=tenant, generation=1, direction="upload", trigger="release", state="failed",
        finished_at=timezone.now() - timedelta(minutes=7), error_code="denied", error_detail=WRONG_KEY["detail"],
    )  # fmt: skip
    return row


def needs_of(page: str) -> list[str]:
    """The text of each need, with the addresses of its forms and links."""
    return re.findall(r'<article class="need.*?</article>', page)


def test_one_entry_says_the_cause_what_waits_and_how_to_cure_it(admin):
    credentials.create(id="keys", name="k", access_key_id="AKID", secret_access_key="secret")
    pool = make_pool("notes")
    spec = make_sync_spec(pool, id="notes-sync", sink_health=WRONG_KEY, credential_id="keys")
    for tenant in ("alice", "bob"):
        unsaved(tenant, pool, spec)
    page = text_of(admin.get("/"))
    (need,) = needs_of(page)

    assert "<title>(1!)" in page
    assert "1 issue needs attention." in page
    assert '<a class="mono" href="/sync/specs/notes-sync/" >notes-sync</a> cannot save' in need
    assert "The secret key is wrong (403 SignatureDoesNotMatch)." in need
    assert "2 tenants wait. Their state is safe on this node." in need
    assert 'href="/settings/credentials/keys/"' in need
    assert "Retry 2 saves" in need
    assert 'action="/sync/specs/notes-sync/probe"' in need
    assert "alice" not in need


def test_who_may_not_change_credentials_is_not_sent_there(operator):
    credentials.create(id="keys", name="k", access_key_id="AKID", secret_access_key="secret")
    make_sync_spec(make_pool(), id="a", sink_health=WRONG_KEY, credential_id="keys")
    (need,) = needs_of(text_of(operator.get("/")))
    assert "/settings/credentials/" not in need


def test_keys_of_the_spec_itself_are_changed_there(operator):
    make_sync_spec(make_pool(), id="a", sink_health=WRONG_KEY)
    (need,) = needs_of(text_of(operator.get("/")))
    assert 'href="/sync/specs/a/edit">' in need.replace('edit" >', 'edit">')
    assert "Change the keys" in need


def test_a_viewer_reads_causes_without_buttons(client, db, data_dir):
    client.force_login(member("viewer"))
    make_sync_spec(make_pool(), sink_health=WRONG_KEY)
    make_pool("broken", trouble="start_failed", last_error="x")
    for need in needs_of(text_of(client.get("/"))):
        assert "<form" not in need
        assert 'class="acts"' not in need


def test_an_objects_own_page_has_its_entry_without_a_link_to_itself(operator):
    pool = make_pool("notes", workload=make_workload("w"), trouble="start_failed", last_error="No such image: x.")
    make_sync_spec(pool, id="s", sink_health=WRONG_KEY)
    page = text_of(operator.get("/pools/notes/"))
    own = next(need for need in needs_of(page) if "cannot start containers" in need)

    assert 'href="/pools/notes/"' not in own
    assert "No such image: x." in own
    assert 'href="/workloads/w/edit#fimage"' in own
    assert "Start now" in own
    assert "cannot save" in page, "the sink concerns the pool's tenants"
    assert "cannot save" not in text_of(operator.get("/pools/")), "the list of pools shows what is wrong with pools"


def test_a_specs_own_page_says_what_keeps_it_from_saving(operator):
    make_sync_spec(make_pool(), id="s", sink_health=WRONG_KEY)
    make_sync_spec(make_pool(), id="other", sink_health=WRONG_KEY, sink={"bucket": "other"})
    (need,) = needs_of(text_of(operator.get("/sync/specs/s/")))
    assert "The secret key is wrong" in need
    assert 'href="/sync/specs/s/"' not in need
    assert "Check the sink" not in need, "the page has that button"
    assert "Check the sink" in text_of(operator.get("/sync/specs/s/"))


def test_retry_acts_on_what_the_cause_affects_now_and_says_how_many(operator):
    pool = make_pool()
    spec = make_sync_spec(pool, id="s", sink_health=WRONG_KEY)
    unsaved("alice", pool, spec)
    (cause,) = causes.present()
    unsaved("bob", pool, spec)
    page = text_of(operator.post("/needs/retry", {"key": cause.key}, follow=True))

    assert "Retrying 2 saves." in page
    assert set(Assignment.objects.values_list("state", flat=True)) == {"releasing"}
    assert set(AuditEntry.objects.values_list("action", "object_id", "actor")) == {
        ("tenant.retry_save", name, "user operator") for name in ("alice", "bob")
    }  # fmt: skip
    again = text_of(operator.post("/needs/retry", {"key": cause.key}, follow=True))
    assert "The saves are already being retried." in again


def test_retry_leaves_tenants_alone_that_use_a_container(operator):
    """A page that was loaded before the tenant claimed again."""
    pool = make_pool()
    spec = make_sync_spec(pool, sink_health=WRONG_KEY)
    row = unsaved("alice", pool, spec)
    (cause,) = causes.present()
    row.delete()
    make_held(pool, "alice")
    page = text_of(operator.post("/needs/retry", {"key": cause.key}, follow=True))
    assert "Nothing was done." in page
    assert Assignment.objects.get().state == "assigned"


@pytest.mark.parametrize("key", ["", "none", "\0", "x" * 10_000])
def test_a_cause_that_is_over_is_not_an_error(operator, key):
    for path in ("/needs/retry", "/needs/start"):
        assert "This has been resolved in the meantime." in text_of(operator.post(path, {"key": key}, follow=True))


def test_start_now_ends_the_back_off_of_all_its_pools(operator):
    workload, later = make_workload("w"), timezone.now() + timedelta(minutes=1)
    for name in ("a", "b"):
        make_pool(name, workload=workload, trouble="start_failed", last_error="x", failures=5, next_start_at=later)
    make_pool("other", trouble="start_failed", last_error="x", failures=5, next_start_at=later)
    cause = next(cause for cause in causes.present() if cause.workload_id == "w")
    assert "Starting containers of a and b." in text_of(operator.post("/needs/start", {"key": cause.key}, follow=True))
    assert set(Pool.objects.filter(next_start_at=None).values_list("pk", "failures")) == {("a", 0), ("b", 0)}
    assert set(AuditEntry.objects.values_list("action", "object_id")) == {("pool.start", "a"), ("pool.start", "b")}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: make_pool("p", waiting=1, is_paused=True), ('action="/pools/p/resume"', "Resume")),
        (lambda: make_held(make_pool("p", waiting=1, max_size=1)), ("/pools/p/?tab=configuration", "Change its size")),
        (
            lambda: make_container(make_pool("p"), state="claimed", health="unhealthy", error="exit code 1"),
            ("/remove", "data-ask", "Save and release"),
        ),
        (
            lambda: make_sync_spec(make_held(make_pool("p"), minutes=9).pool, id="s", interval_ms=60_000),
            ('action="/sync/specs/s/trigger"', "data-ask", "Save now"),
        ),
        (
            lambda: make_pool("p", trouble="disk_low", last_error="1 MB free."),
            ('action="/needs/start"', "Try again", 'href="/settings/node/"'),
        ),
        (
            lambda: make_pool("p", trouble="roll_halted", last_error="Version 2 fails."),
            ('action="/needs/start"', "Retry the roll"),
        ),
    ],
)
def test_each_kind_has_its_cure(operator, make, words):
    make()
    (need,) = needs_of(text_of(operator.get("/")))
    for word in words:
        assert word in need


def test_many_causes_are_shown_in_two_steps(operator):
    for number in range(11):
        make_pool(f"p{number}", trouble="start_failed", last_error=f"error {number}")
    page = text_of(operator.get("/"))
    assert len(needs_of(page)) == 11
    assert "Show 3 more" in page


def test_the_sidebar_counts_sinks_as_it_counts_pools_and_tenants(operator):
    pool = make_pool()
    make_sync_spec(pool, sink_health=WRONG_KEY)
    make_sync_spec(pool, sink_health=WRONG_KEY)
    make_sync_spec(make_pool(), sink_health={"state": "healthy"}, sink={"bucket": "other"}, interval_ms=60_000)
    make_held(Pool.objects.order_by("-created_at")[0], "late", minutes=9)
    assert save_causes.alerts() == 2
    nav = text_of(operator.get("/workloads/")).split('id="nav"')[1].split("</nav>")[0]
    assert re.search(r"Sync</span> <span class=\"n t-error\">.*?<b>2</b>", nav)


def test_a_node_without_workers_leads_to_the_processes(operator):
    deployment.register_node()
    node = make_node("there")
    type(node).objects.filter(pk="there").update(heartbeat_at=timezone.now() - timedelta(minutes=5))
    (need,) = needs_of(text_of(operator.get("/")))
    assert "Node " in need
    assert 'href="/settings/"' in need


def test_a_pool_without_a_node_leads_to_the_nodes_and_to_its_placement(operator):
    """An edit of the workload or another start would change nothing."""
    make_pool(
        "notes",
        workload=make_workload("w"),
        trouble="no_node",
        last_error="No node can take another container: 1 is cordoned.",
    )
    (need,) = needs_of(text_of(operator.get("/")))
    assert 'href="/nodes/"' in need
    assert "/pools/notes/?tab=configuration#fplacementnodeselector" in need
    assert "Edit workload" not in need
    assert "Start now" not in need
    assert 'id="fplacementnodeselector"' in text_of(operator.get("/pools/notes/?tab=configuration"))


def test_a_tenants_own_page_says_the_cause_and_retries_only_what_failed(operator):
    pool = make_pool()
    spec = make_sync_spec(pool, sink_health=WRONG_KEY)
    row = unsaved("alice", pool, spec)
    page = text_of(operator.get("/tenants/alice/"))
    (need,) = needs_of(page)
    assert "The secret key is wrong (403 SignatureDoesNotMatch)." in need
    assert 'name="asked" value="retry"' in page

    row.delete()
    make_held(pool, "alice")
    answer = operator.post("/tenants/alice/release", {"asked": "retry"})  # of the page as it was
    assert answer.status_code == 409
    assert Assignment.objects.get().state == "assigned"
