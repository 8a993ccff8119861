"""Questions before actions: asked with the state of that moment, and as strongly as the action may destroy."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.utils import timezone

from boilerhouse.core import api_keys
from boilerhouse.core.context import acting
from boilerhouse.core.models import AuditEntry, Role
from boilerhouse.dashboard.urls import urlpatterns
from syncing import credentials
from syncing.models import Backup, Credential
from tenants.models import Assignment, Tenant
from tests.make import make_container, make_pool, make_sync_spec, make_workload
from tests.pages import text_of

DIALOG = {"HX-Request": "true", "HX-Target": "question"}
TYPED = re.compile(r'data-typed="([^"]*)"')


@pytest.fixture
def operator(client, db, data_dir):
    user = User.objects.create_user("olga", password="a long password", is_staff=True)
    user.groups.add(Group.objects.get_or_create(name="operator")[0])
    client.force_login(user)
    return client


@pytest.fixture
def admin(client, db, data_dir):
    client.force_login(User.objects.create_superuser("ada", password="a long password"))
    return client


def held(pool, tenant="alice", state="assigned", **more: Any) -> Assignment:
    container = make_container(pool, state="claimed", disk_bytes=3_000_000)
    return Assignment.objects.create(
        tenant=Tenant.objects.get_or_create(id=tenant)[0], pool=pool, generation=1, state=state, deadline=timezone.now(),
        container=container, container_ref=container.pk, version=container.version, uid=container.uid,
        was_assigned=True, assigned_at=timezone.now(), last_activity_at=timezone.now(), **more,
    )  # fmt: skip


def asked(client, path: str, **query: Any) -> str:
    answer = client.get(path, query, headers=DIALOG)
    assert answer.status_code == 200, (path, answer.content.decode())
    assert answer["Cache-Control"] == "no-store"
    return text_of(answer)


def test_a_question_tells_of_now_and_not_of_when_the_page_was_loaded(operator):
    """A2: the page of an idle container, claimed while it was open."""
    pool = make_pool("notes")
    make_sync_spec(pool, id="notes-sync")
    container = make_container(pool)
    path = f"/containers/{container.pk}/remove"
    assert "No tenant is using it." in asked(operator, path)
    container.state = "claimed"
    container.save()
    Assignment.objects.create(
        tenant=Tenant.objects.create(id="alice"), pool=pool, generation=1, state="assigned", deadline=timezone.now(),
        container=container, container_ref=container.pk, version=container.version, was_assigned=True,
    )  # fmt: skip

    now = asked(operator, path)
    assert "Release alice?" in now
    assert "its state is saved by notes-sync" in now
    assert "No tenant is using it" not in now


def test_an_answer_to_an_older_question_does_nothing(operator):
    """A2: the dialog stood open while a tenant claimed the container."""
    row = held(make_pool("notes"))
    answer = operator.post(f"/containers/{row.container_ref}/remove", {"asked": "remove", "next": "/pools/notes/"})

    assert answer.status_code == 409
    assert "Something has changed since you were asked." in text_of(answer)
    row.refresh_from_db()
    assert row.state == "assigned"


def test_who_would_lose_state_is_told_so_and_has_to_type(operator):
    row = held(make_pool("notes"))
    question = asked(operator, "/tenants/alice/release")

    assert (
        "Nothing is saved: no sync spec of notes saves on release. Its state (3.0 MB when last measured) is lost."
        in question
    )
    assert TYPED.findall(question) == ["alice"]
    operator.post("/tenants/alice/release", {"asked": "lose"})
    row.refresh_from_db()
    assert row.state == "assigned"
    operator.post("/tenants/alice/release", {"asked": "lose", "typed": "alice"})
    row.refresh_from_db()
    assert row.state == "releasing"


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("pending", "Cancel the claim of alice?"), ("assigned", "Release alice?"), ("releasing", "already being released"),
        ("release_failed", "Save alice again?"),
    ],
)  # fmt: skip
def test_the_question_of_a_release_is_that_of_its_state(operator, state, words):
    pool = make_pool("notes")
    make_sync_spec(pool)
    held(pool, state=state)
    assert words in asked(operator, "/tenants/alice/release")


def test_draining_and_deleting_count_what_is_there_now(operator):
    pool = make_pool("notes")
    make_container(pool)
    assert "1 idle or starting container is removed. No tenant is using this pool." in asked(
        operator, "/pools/notes/drain"
    )
    held(pool)
    assert "1 tenant stays until release." in asked(operator, "/pools/notes/drain")
    question = asked(operator, "/pools/notes/delete")
    assert "1 tenant is released first without a save: its state is lost." in question
    assert TYPED.findall(question) == ["notes"]


def test_what_cannot_be_undone_asks_in_the_settings_too(admin):
    """A6: revoking a key and deleting credentials were one click."""
    with acting("user ada"):
        key, _ = api_keys.create_key(name="gateway", role=Role.OPERATOR)
        credentials.create(id="c1", name="c", access_key_id="AKID", secret_access_key="secret")
    page = text_of(admin.get("/settings/keys/")) + text_of(admin.get("/settings/credentials/"))
    for path in (f"/settings/keys/{key.pk}/revoke", "/settings/credentials/c1/delete"):
        assert f'method="post" action="{path}"' not in page
        assert f'method="get" action="{path}" data-ask' in page
    assert "Revoke the key gateway?" in asked(admin, f"/settings/keys/{key.pk}/revoke")
    assert TYPED.findall(asked(admin, "/settings/credentials/c1/delete")) == ["c1"]
    admin.post("/settings/credentials/c1/delete", {})
    assert credentials.find("c1")
    admin.post("/settings/credentials/c1/delete", {"typed": "c1"})
    assert not Credential.objects.exists()


def test_saving_for_all_tenants_asks_with_their_number(operator):
    """A6: *Sync all assigned* was one click."""
    pool = make_pool("notes")
    make_sync_spec(pool, id="notes-sync")
    held(pool, "a")
    held(pool, "b")
    assert "Save 2 tenants now?" in asked(operator, "/sync/specs/notes-sync/trigger")


def test_a_question_changes_nothing_and_works_without_scripts(operator):
    pool = make_pool("notes")
    make_sync_spec(pool)
    row = held(pool)
    page = operator.get("/tenants/alice/release", headers={"Referer": "http://testserver/pools/notes/?tab=timeline"})

    text = text_of(page)
    assert "<h1>Release alice?</h1>" in text
    assert 'name="next" value="/pools/notes/?tab=timeline"' in text
    row.refresh_from_db()
    assert row.state == "assigned"
    assert not AuditEntry.objects.exists()
    given = {"asked": "release", "next": "/pools/notes/?tab=timeline"}
    assert operator.post("/tenants/alice/release", given).headers["Location"] == "/pools/notes/?tab=timeline"


@pytest.mark.parametrize("role", ["nobody", "viewer"])
def test_who_may_not_act_is_not_asked(client, db, data_dir, role):
    held(make_pool("notes"))
    if role == "viewer":
        user = User.objects.create_user("vera", is_staff=True)
        user.groups.add(Group.objects.get_or_create(name="viewer")[0])
        client.force_login(user)
    answer = client.get("/tenants/alice/release", headers=DIALOG)
    assert answer.status_code == (403 if role == "viewer" else 302)
    assert "Release alice" not in answer.content.decode()


FORM = {"name": "notes", "minSize": "0", "maxSize": "20", "minIdle": "0", "onUnhealthy": "report"}


def test_a_shorter_time_without_activity_says_whom_it_releases_before_it_is_saved(operator):
    """A3: 30 was typed, and all tenants of the pool were released within seconds."""
    pool = make_pool("notes")
    make_sync_spec(pool)
    for number in range(7):
        row = held(pool, f"t-{number}")
        Assignment.objects.filter(pk=row.pk).update(last_activity_at=timezone.now() - timedelta(minutes=5 + number))
    page = operator.post("/pools/notes/configure", {**FORM, "idleTimeoutMs": "30"})
    assert page.status_code == 422
    assert "Enter a number with a unit, such as 90 s, 30 min, 8 h or 7 d." in text_of(page)
    assert "Enter at least 10 s, or 0." in text_of(
        operator.post("/pools/notes/configure", {**FORM, "idleTimeoutMs": "30 ms"})
    )

    question = text_of(operator.post("/pools/notes/configure", {**FORM, "idleTimeoutMs": "30 s"}))
    assert "7 tenants of notes have been inactive for longer than 30 s and would be released now" in question
    assert TYPED.findall(question) == ["7"]
    assert 'name="idleTimeoutMs" value="30 s"' in question
    pool.refresh_from_db()
    assert pool.idle_timeout_ms == 0
    operator.post("/pools/notes/configure", {**FORM, "idleTimeoutMs": "30 s", "asked": "idle", "typed": "6"})
    pool.refresh_from_db()
    assert pool.idle_timeout_ms == 0
    operator.post("/pools/notes/configure", {**FORM, "idleTimeoutMs": "30 s", "asked": "idle", "typed": "7"})
    pool.refresh_from_db()
    assert pool.idle_timeout_ms == 30_000


def test_a_time_that_releases_nobody_is_saved_at_once(operator):
    pool = make_pool("notes")
    held(pool)
    operator.post("/pools/notes/configure", {**FORM, "idleTimeoutMs": "1 h 30 min"})
    pool.refresh_from_db()
    assert pool.idle_timeout_ms == 5_400_000
    page = text_of(operator.get("/pools/notes/?tab=configuration"))
    assert 'name="idleTimeoutMs" value="90"' in page
    assert '<option value="min" selected>' in page


def pages_of(admin) -> dict[str, str]:
    """Pages in the states in which their buttons differ."""
    now, pool = timezone.now(), make_pool("notes", workload=make_workload("w1"))
    make_workload("unused")
    spec = make_sync_spec(pool, id="notes-sync")
    idle, rows = (
        make_container(pool),
        {state: held(pool, state, state) for state in ("pending", "assigned", "releasing")},
    )
    Tenant.objects.create(id="gone")
    Assignment.objects.create(
        tenant_id="gone", pool=pool, generation=1, state="ended", deadline=now, outcome="state_missing",
        ended_at=now - timedelta(minutes=1),
    )  # fmt: skip
    held(pool, "stuck", "release_failed")
    Backup.objects.create(
        tenant_id="gone", spec=spec, place="p", location="t/gone", backup="b", container_path="/state", files=3, bytes=9
    )
    paths = [f"/tenants/{name}/" for name in (*rows, "gone", "stuck")]
    paths += [f"/containers/{pk}/" for pk in (idle.pk, rows["assigned"].container_ref)]
    paths += [
        "/pools/notes/",
        "/pools/notes/?tab=configuration",
        "/sync/specs/notes-sync/",
        "/workloads/unused/",
        "/workloads/w1/",
    ]
    return {path: admin.get(path).content.decode() for path in paths}


def test_every_button_that_opens_something_finds_it(admin, monkeypatch):
    """A1: what a button opens stands outside ``main`` and in every page, or is fetched."""
    monkeypatch.setattr("tenants.activity.logs", lambda *_, **__: b"")
    questions = 0
    for path, page in pages_of(admin).items():
        main = page[page.index("<main") : page.index("</main>")]
        shell = page.replace(main, "")
        assert "commandfor" not in main, path
        assert "<dialog" not in main, path
        assert set(re.findall(r'commandfor="([^"]+)"', shell)) <= set(re.findall(r'<dialog id="([^"]+)"', shell)), path
        for action in re.findall(r'method="get" action="([^"]+)" data-ask', main):
            if action != "/containers/remove":  # nothing is selected
                assert 'id="question-form"' in asked(admin, action), (path, action)
                questions += 1
    assert questions > 12


def test_every_action_asks_or_can_be_repeated():
    """A6: what neither asks nor is listed here fails, so that a new action is thought about."""
    harmless = {
        "pool-configure", "pool-scale", "pool-pause", "pool-resume", "run-cancel", "sync-probe", "set-theme", "set-times",
        "logout", "user-role", "user-enable", "account-end-session", "account-end-others", "node-backup",
        "load-example", "use-built-in-s3",
        "need-retry", "need-start",
        "notification-test", "notification-mute", "notification-resend", "mute-cause",
        "node-cordon", "node-uncordon",
        "tenant-file-directory", "tenant-file-upload",
    }  # fmt: skip
    asks, others = set(), set()
    for one in urlpatterns:
        allowed = getattr(one.callback, "asks", None)
        (asks if allowed else others).add(str(one.name))
    assert asks == {
        "tenant-release", "tenant-discard", "tenant-erase", "tenant-forget", "backup-put-back", "container-remove", "pool-drain",
        "release-many",
        "pool-delete", "containers-remove", "delete-spec", "sync-trigger", "delete-workload", "workload-refresh", "workload-roll-back", "revoke-key",
        "delete-credential", "delete-registry-credential", "delete-notification", "user-disable", "user-end-sessions", "user-new-password",
        "tenant-file-remove", "node-drain", "node-lost",
    }  # fmt: skip
    posts = {str(one.name) for one in urlpatterns if getattr(one.callback, "is_action", False)}
    assert posts - asks == harmless - {"set-theme", "set-times", "logout"}


def test_a_question_that_cannot_be_asked_is_answered_in_its_dialog(operator):
    """A redirect is followed unseen: the page that it leads to was rendered with the message, and then loaded anew."""
    make_sync_spec(make_pool("notes"), id="notes-sync")
    answer = operator.get("/sync/specs/notes-sync/trigger", headers=DIALOG)
    assert answer.status_code == 409
    assert 'id="question-form"' in text_of(answer)
    assert "There is nothing to save." in text_of(answer)
    assert not list(answer.wsgi_request._messages), "the dialog has said it"
    answer = operator.get("/sync/specs/notes-sync/trigger", follow=True)
    assert "There is nothing to save." in text_of(answer)


def test_what_is_not_there_any_more_is_said_on_the_page_of_the_button(operator):
    """Release and Retry led to a bare 404 if somebody else had released the tenant a moment before."""
    row = held(make_pool("notes"))
    Assignment.objects.filter(pk=row.pk).update(state="ended", ended_at=timezone.now(), outcome="released")
    words = "holds no container"
    answer = operator.get("/tenants/alice/release", headers=DIALOG)
    assert answer.status_code == 404
    assert words in text_of(answer)
    here = {"Referer": "http://testserver/tenants/alice/"}
    for answer in (
        operator.get("/tenants/alice/release", headers=here, follow=True),
        operator.post("/tenants/alice/release", {"asked": "retry"}, headers=here, follow=True),
    ):
        assert answer.redirect_chain == [("/tenants/alice/", 303)]
        assert answer.status_code == 200
        assert words in text_of(answer)
    assert operator.post("/tenants/alice/release").status_code == 404, "no page has asked"


def test_a_page_that_is_not_there_keeps_the_navigation_for_who_is_signed_in(operator):
    page = text_of(operator.get("/pools/none/"))
    assert 'id="nav"' in page
    assert "Go to the overview" in page
    operator.logout()
    page = text_of(operator.get("/no/such/page"))
    assert 'id="nav"' not in page
    assert "Go to the overview" in page
