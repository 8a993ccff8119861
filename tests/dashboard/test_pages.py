"""The overview, login and the admin, without a browser."""

from __future__ import annotations

import re

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.core.management import call_command
from django.urls import reverse
from django.utils import timezone

from boilerhouse.core import clock
from boilerhouse.core.deployment import node_id
from boilerhouse.core.events import emit
from boilerhouse.core.models import Session
from boilerhouse.process import budgets
from pools.models import ImagePull
from pools.states import PullState
from tenants.models import Assignment, Tenant
from tests.make import make_container, make_pool, make_sync_spec, make_workload
from tests.pages import text_of


@pytest.fixture
def staff(client, db, data_dir):
    client.force_login(User.objects.create_superuser("ada", password="a long password"))
    return client


def test_strangers_are_sent_to_the_login_and_customers_are_refused(client, db):
    assert client.get("/").headers["Location"] == "/login/?next=/"
    client.force_login(User.objects.create_user("carl"))
    assert client.get("/").status_code == 403


def test_an_empty_overview_says_what_to_do(staff):
    page = staff.get("/").content.decode()

    assert "Nothing runs yet" in page
    assert "First steps" in page


def test_what_needs_somebody_comes_first(staff):
    make_pool("broken", last_error="no such image")
    good = make_pool("good")
    make_container(good)
    make_sync_spec(good, sink_health={"state": "unhealthy", "detail": "bucket is gone"})
    Assignment.objects.create(
        tenant=Tenant.objects.create(id="org:1"), pool=good, generation=1, state="release_failed", deadline=timezone.now(),
        outcome_detail="403 from the sink",
    )  # fmt: skip
    page = staff.get("/").content.decode()

    assert "3 issues need attention" in page
    for words in ("org:1", "403 from the sink", "no such image", "bucket is gone"):
        assert words in page
    assert page.index('id="pool-broken"') < page.index('id="pool-good"')
    assert "<title>(3!)" in page


def test_a_stopped_roll_an_engine_that_is_away_and_a_silent_queue_need_somebody(staff):
    from datetime import timedelta

    from boilerhouse.core.models import QueueHealth

    make_container(make_pool("rolls", trouble="roll_halted", last_error="Version 2 does not become healthy."))
    make_container(make_pool("churns", trouble="unstable", last_error="Containers become warm and then fail."))
    make_container(make_pool("stuck", trouble="engine_down", last_error="The container engine does not answer."))
    QueueHealth.objects.create(name="save", served_at=timezone.now() - timedelta(minutes=1))
    page = staff.get("/").content.decode()

    for words in (
        "stopped rolling to the new version",
        "fail repeatedly",
        "cannot start containers",
        "is not served",
        "Version 2 does not become healthy.",
    ):
        assert words in page


def test_a_claim_that_nobody_waits_for_says_until_when_and_one_that_failed_says_why(staff):
    """Its caller reads them here. While the claim is pending, no state can be lost."""
    from datetime import timedelta

    soon, container = timezone.now() + timedelta(minutes=4), make_container(state="claimed")
    about = {"pool": container.pool, "generation": 1, "waits": False, "deadline": soon}
    on_its_way = {"container": container, "container_ref": container.pk}
    Assignment.objects.create(tenant=Tenant.objects.create(id="alice"), **about, **on_its_way)
    Assignment.objects.create(tenant=Tenant.objects.create(id="walt"), **about)
    Assignment.objects.create(tenant=Tenant.objects.create(id="waiter"), **{**about, "waits": True})
    Assignment.objects.create(
        tenant=Tenant.objects.create(id="bob"), **about, state="ended", outcome="claim_timeout",
        outcome_detail="Nothing of the claim has moved for 300 s.", ended_at=timezone.now(),
    )  # fmt: skip
    pages = {name: text_of(staff.get(f"/tenants/{name}/")) for name in ("alice", "walt", "waiter", "bob")}

    assert re.search(r"aborted <time[^>]*>in [^<]*</time> unless it makes progress", pages["alice"])
    assert "Nothing would be lost." in pages["alice"]
    assert "unless a container becomes free" in pages["walt"]
    assert re.search(r"The client waits until <time", pages["waiter"])
    assert re.search(r"The last claim failed <time[^>]*>[^<]*</time> \(claim_timeout\)", pages["bob"])
    assert "Nothing of the claim has moved for 300 s." in pages["bob"]
    assert "Claim failed" in pages["bob"]


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("stopping", 'Changes since the last save would be lost.</b> <span class="muted">The release saves them now.'),
        ("destroying", 'Nothing would be lost.</b> <span class="muted">The release has saved the state.'),
    ],
)
def test_a_release_says_what_the_loss_of_the_node_would_take(staff, step, words):
    """A11: it said that no spec saves periodically, of a spec that saves every 15 s."""
    container = make_container(state="claimed")
    make_sync_spec(container.pool, interval_ms=15_000)
    Assignment.objects.create(
        tenant=Tenant.objects.create(id="alice"), pool=container.pool, generation=1, deadline=timezone.now(),
        state="releasing", step=step, container=container, container_ref=container.pk, version=container.version,
        was_assigned=True, assigned_at=timezone.now(),
    )  # fmt: skip
    page = text_of(staff.get("/tenants/alice/"))
    assert words in page
    assert "saves periodically" not in page


def test_a_pool_that_saves_nothing_says_so_first_with_the_way_to_mend_it(staff):
    """B1: it stood at the bottom of a side column, cut off."""
    pool = make_pool("notes")
    page = text_of(staff.get("/pools/notes/"))
    assert page.index("What tenants write is lost on release.") < page.index('aria-label="Pool sections"')
    assert 'href="/sync/specs/new?pool=notes">Add a sync spec</a>' in page
    make_sync_spec(pool)
    assert "is lost on release" not in text_of(staff.get("/pools/notes/"))


def test_a_tenants_page_shows_what_it_uses(staff):
    """Exact numbers, and bytes in readable units."""
    container = make_container(state="claimed")
    about = {"pool": container.pool, "generation": 1, "deadline": timezone.now()}
    held = {"container": container, "container_ref": container.pk}
    Assignment.objects.create(tenant=Tenant.objects.create(id="alice"), **about, **held)
    alice = budgets.tenant("alice")
    with budgets.bodies.enter(alice, amount=3_000_000), budgets.streams.enter(alice):
        page = re.sub("<[^>]*>", "", text_of(staff.get("/tenants/alice/")))
    assert re.search(r"Bytes of request bodies\s+3\.0 MB\s+of 16\.8 MB", page)
    assert re.search(r"Bytes of stored answers\s+0 B\s+of 4\.2 MB", page)
    assert re.search(r"Open streams\s+1\s+of 50", page)


def test_a_spec_that_may_transfer_nothing_is_not_shown_as_healthy(staff):
    """Another spec's save may find the conflict, after the last probe of this one succeeded."""
    well = {"state": "healthy", "checkedAt": "2026-01-31T12:00:00Z"}
    words = "Nothing is restored or saved until one of the two is changed."
    make_sync_spec(id="meets", sink_health=well, place_state="conflict", place_detail=words)
    for path in ("/", "/sync/", "/sync/specs/meets/"):
        assert words in staff.get(path).content.decode(), path
    assert "meets</a> is blocked" in staff.get("/").content.decode()
    page = staff.get("/sync/specs/meets/").content.decode()
    assert "Location conflict" in page
    assert "Healthy" not in page
    assert re.search(r"Last checked <time[^>]*2026-01-31", page)


def test_failing_steps_stand_in_sentences_with_room_for_them(staff):
    """Next to another card their table overflowed the page."""
    from boilerhouse.core.models import FailingStep

    FailingStep.objects.create(name="probe", error="ZeroDivisionError", detail="x.py:88", since=timezone.now())
    page = text_of(staff.get("/"))
    assert "ZeroDivisionError: x.py:88." in page
    assert "It is retried; the other steps continue." in page
    page = staff.get("/settings/").content.decode()
    assert page.index("Failing steps") < page.index('class="cols"')


def test_a_pool_whose_first_start_waits_for_a_pull_is_not_shown_as_healthy(staff):
    """A pull counts as a starting container, and may take an hour."""
    pull = ImagePull.objects.create(node_id=node_id(), image="r.example/big:1", state=PullState.RUNNING)
    pool = make_pool("big", min_size=1)
    make_container(pool, state="starting", pull=pull)
    page = text_of(staff.get("/pools/big/"))
    assert "Pulling image" in page
    assert "contacting the registry" in page
    assert "Healthy" not in heading_of(page)
    pull.progress = {"bytes": 3_000_000, "totalBytes": 12_000_000, "percent": 25.0, "layers": 4, "layersDone": 1}
    pull.save()
    assert '<progress value="25.0" max="100"' in staff.get("/pools/big/").content.decode()
    make_container(pool)
    assert "Healthy" in heading_of(text_of(staff.get("/pools/big/"))), "it serves meanwhile"


def heading_of(page: str) -> str:
    return page.split("<h1")[1].split("</h1>")[0]


def test_an_older_image_is_said_once_on_its_pools_page(staff):
    """Under "needs attention", and not in a second warning below it."""
    error = "Image r.example/a:1 cannot be pulled: connection refused."
    failed = ImagePull.objects.create(node_id=node_id(), image="r.example/a:1", state=PullState.FAILED, error=error)
    make_container(make_pool("old", failed_pull=failed))
    page = staff.get("/pools/old/").content.decode()
    assert "runs an older image" in page
    assert page.count(error) == 1


def test_a_workloads_page_says_which_image_runs_and_what_its_tag_names(staff):
    """As ``imageStatus`` does."""
    workload = make_workload("app", image="r.example/app:1")
    page = staff.get("/workloads/app/").content.decode()
    assert "not known yet" in page
    assert "not checked yet" in page
    runs, names = "sha256:" + "a" * 64, "sha256:" + "c" * 64
    workload.versions.update(manifest_digest=runs, tag_digest=names)
    page = staff.get("/workloads/app/").content.decode()
    for digest in (runs, names):
        assert f'<span class="mono" title="{digest}">{digest[7:19]}</span>' in page
    workload.versions.update(tag_digest=runs)
    assert "the same" in staff.get("/workloads/app/").content.decode()
    make_workload("fixed", image=f"r.example/app@{runs}")
    assert "none: the image is fixed" in staff.get("/workloads/fixed/").content.decode()


def test_the_pages_queries_do_not_grow_with_pools(staff, django_assert_max_num_queries):
    failed = ImagePull.objects.create(node_id=node_id(), image="r.example/a:1", state=PullState.FAILED, error="Away.")
    for number in range(12):
        pool = make_pool(f"p{number}", failed_pull=failed)
        make_container(pool)
        make_container(pool, state="starting")
    for _ in range(30):
        emit("pool.scaled", pool_id="p1")

    clock.now()  # its own query now and then is not the page's
    with django_assert_max_num_queries(36):
        assert staff.get("/").status_code == 200


def test_markup_in_names_is_shown_not_run(staff):
    make_pool("x", last_error="<script>alert(1)</script>")
    emit("pool.warning", pool_id="x", detail="<img src=x onerror=alert(1)>")
    page = staff.get("/").content.decode()

    assert "<script>alert(1)" not in page
    assert "<img src=x" not in page


def test_pages_have_a_strict_policy_and_no_inline_script_or_style(staff):
    import re

    make_container()
    answer = staff.get("/")
    page = answer.content.decode()

    assert "default-src 'self'" in answer["Content-Security-Policy"]
    assert "unsafe" not in answer["Content-Security-Policy"]
    assert answer["X-Frame-Options"] == "DENY"
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", page)


def test_a_login_link_works_once(client, db, data_dir, capsys):
    call_command("login_link", "--create", "--user", "eve", skip_checks=True)
    path = capsys.readouterr().out.strip()

    assert client.get(path).headers["Location"] == "/"
    client.logout()
    assert client.get(path).status_code == 410


def test_the_theme_is_kept_in_a_cookie_and_leads_nowhere_else(staff):
    answer = staff.post("/theme", {"theme": "dark"}, headers={"Referer": "https://evil.example/"})

    assert answer.headers["Location"] == "/"
    assert 'data-theme="dark"' in staff.get("/").content.decode()
    staff.post("/theme", {"theme": "<x>"})
    assert "<x>" not in staff.get("/").content.decode()


def test_every_model_is_in_the_admin_read_only_and_without_secrets(staff):
    pool = make_pool()
    make_container(pool)
    make_sync_spec(pool, sink_secrets={"accessKeyId": "A", "secretAccessKey": "ADMIN-CANARY"})
    for model in admin.site._registry:
        if model._meta.app_label not in {"core", "pools", "syncing", "tenants", "notifications"}:
            continue
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        page = staff.get(reverse(f"{name}_changelist"))
        assert page.status_code == 200
        assert staff.get(reverse(f"{name}_add")).status_code == 403
        for row in model.objects.all()[:1]:
            page = staff.get(reverse(f"{name}_change", args=[row.pk]))
            assert page.status_code == 200
            assert "ADMIN-CANARY" not in page.content.decode()
            assert 'name="_save"' not in page.content.decode()
    from django.apps import apps

    labels = ("core", "pools", "syncing", "tenants", "notifications")
    ours = {m for label in labels for m in apps.get_app_config(label).get_models()}
    assert ours - {Session} <= set(admin.site._registry), "a session's key would sign anybody in"
