"""Every page and every action of the URL table, in every state and for every role."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.urls import URLPattern, reverse
from django.utils import timezone

from boilerhouse.core import api_keys, audit
from boilerhouse.core.context import acting
from boilerhouse.core.events import emit, recording
from boilerhouse.core.models import Event, Role
from boilerhouse.dashboard.urls import urlpatterns
from pools import registry_credentials
from pools.models import Container, ContainerUsage, PoolUsage
from syncing import credentials
from syncing.models import Backup, SyncRun
from tenants.models import Assignment, Tenant
from tests.make import make_container, make_delivery, make_node, make_pool, make_sync_spec, make_workload

OPEN = {"set-theme", "set-times", "login", "logout", "one-time-login", "set-password", "password_change"}
ADMIN_PAGES = {
    "settings-keys",
    "credentials",
    "credential",
    "registries",
    "registry-credential",
    "notifications",
    "notification",
    "settings-deployment",
    "changes",
    "users",
    "user",
    "rotate-key",
    "usage",
}
ADMIN_ACTIONS = {
    "notification-test", "notification-mute", "notification-resend", "delete-notification",
    "revoke-key", "delete-credential", "delete-registry-credential", "user-role", "user-disable", "user-enable",
    "user-end-sessions", "user-new-password", "node-backup",
}  # fmt: skip
VIEWER_ACTIONS = {"account-end-session", "account-end-others"}
OPERATOR_PAGES = {
    "node", "node-part",
    "container-logs", "containers-removed", "terminal", "tenant-sync", "new-pool", "new-workload", "edit-workload", "new-spec",
    "edit-spec", "pool-claim", "tenant-files", "tenant-file", "tenant-file-download", "tenant-file-archive", "tenant-file-edit",
    "tenant-file-move",
}  # fmt: skip
VIEWER_PAGES = {
    "overview", "pools", "pool", "pool-effect", "containers", "container", "tenants", "tenant", "sync", "sync-specs", "sync-spec", "run",
    "workloads", "workload", "activity", "search", "settings", "account", "nodes",
}  # fmt: skip
OPERATOR_ACTIONS = {
    "pool-configure", "pool-scale", "pool-pause", "pool-resume", "pool-drain", "pool-delete", "containers-remove",
    "release-many",
    "container-remove", "tenant-release", "tenant-discard", "tenant-erase", "tenant-forget", "backup-put-back", "run-cancel", "sync-trigger", "sync-probe",
    "delete-spec", "delete-workload", "workload-refresh", "workload-roll-back",
    "load-example", "use-built-in-s3",
    "need-retry", "need-start",
    "mute-cause",
    "node-cordon", "node-uncordon", "node-drain", "node-lost",
    "tenant-file-remove", "tenant-file-directory", "tenant-file-upload",
}  # fmt: skip
OF_A_SESSION = {"bulk-release"}
"""Tried where the session does what the page shows (``test_bulk_release``)."""
PAGES = VIEWER_PAGES | OPERATOR_PAGES | ADMIN_PAGES
SECRET = "CANARY-OF-A-SECRET"
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def world(db, data_dir) -> dict[str, Any]:
    """One object of each kind, in every state."""
    now = timezone.now()
    pool = make_pool("p1", workload=make_workload("w1"), name=HOSTILE)
    make_workload("unused")
    idle, held = make_container(pool), make_container(pool, state="claimed", health="unhealthy", error=HOSTILE)
    make_container(pool, state="starting")
    make_container(pool, state="removing", health="healthy", disk_bytes=5_000_000)
    spec = make_sync_spec(pool, id="s1", interval_ms=60_000, sink_health={"state": "unhealthy", "detail": HOSTILE})
    for number, (tenant, state) in enumerate(
        [
            ("pending", "pending"),
            ("a.b@c", "assigned"),
            ("going", "releasing"),
            ("stuck", "release_failed"),
            ("gone", "ended"),
        ]
    ):
        row = Assignment(
            tenant=Tenant.objects.create(id=tenant, generation=number), pool=pool, generation=number, state=state,
            deadline=now, outcome_detail=HOSTILE if state == "release_failed" else "", step="saving" if state == "releasing" else "",
        )  # fmt: skip
        if state == "assigned":
            row.container, row.container_ref, row.assigned_at = held, held.pk, now - timedelta(minutes=9)
            row.version, row.uid = held.version, held.uid
            row.config, row.endpoints = {"x": HOSTILE}, [{"name": "http", "host": "10.0.0.1", "port": 80}]
        if state == "ended":
            row.ended_at, row.outcome, row.was_assigned = now, "released", True
        row.save()
    run = None
    for state in ("queued", "running", "succeeded", "failed", "cancelled"):
        run = SyncRun.objects.create(
            spec=spec, tenant_id="a.b@c", generation=99, direction="upload", trigger="manual", state=state,
            started_at=now, finished_at=now if state in ("succeeded", "failed") else None,
            progress={"bytes": 5, "totalBytes": 10, "percent": 50.0, "etaMs": 1200, "bytesPerSecond": 7, "files": 1},
            error_detail=HOSTILE if state == "failed" else "",
        )  # fmt: skip
    run = SyncRun.objects.filter(state="queued").get()
    backup = Backup.objects.create(
        tenant_id="gone", spec=spec, place="p", location="t/gone/state", backup="b", container_path="/state", files=3,
        bytes=9,
    )  # fmt: skip
    with acting("user ada"), recording():
        emit("pool.warning", pool_id="p1", detail=HOSTILE)
        emit("container.claimed", pool_id="p1", tenant_id="a.b@c", container_id=held.pk, source="warm", latencyMs=4)
        audit.record("pool.update", "p1", before={"name": HOSTILE}, after={"name": "x"})
        key, _ = api_keys.create_key(name="gateway", role=Role.OPERATOR)
        secret = {"username": "puller", "password": SECRET}
        registry_credentials.create(id="r1", name="r", registry="registry.example.com", secret=secret)
        credentials.create(id="c1", name="c", access_key_id="AKID", secret_access_key=SECRET)
    for minute in range(3):
        at = now - timedelta(minutes=minute)
        ContainerUsage.objects.create(
            container_id=held.pk, at=at, cpu_ns=10**9 * (9 - minute), memory_bytes=10**7, pids=2
        )
        PoolUsage.objects.create(
            pool=pool, at=at, idle=1, claimed=1, size=2, waiting=0, desired_size=2, cpu_cores=0.5,
            memory_bytes=10**7, disk_bytes=0,
        )  # fmt: skip
    return {
        "pool_id": "p1", "container_id": held.pk, "idle": idle.pk, "tenant_id": "a.b@c", "spec_id": "s1",
        "workload_id": "w1", "run_id": run.pk, "key_id": key.pk, "credential_id": "c1", "registry_credential_id": "r1", "backup_id": backup.pk, "removal_id": backup.pk, "pool": pool,
        "user_id": member("colleague", "viewer", is_staff=True).pk, "handle": "none", "part": "now",
        "notification_id": "ops", "node_id": "one", "delivery_id": make_delivery(detail=HOSTILE[:200]).pk,
    }  # fmt: skip


@pytest.fixture(autouse=True)
def _engine(monkeypatch) -> None:
    """The part of the pages; tests/stack reads logs from a real engine."""
    text = b"2026-01-31T12:00:00.123456789Z first line\n2026-01-31T12:00:01.000000001Z <b>second</b> error\n"
    monkeypatch.setattr("tenants.activity.logs", lambda container, tail, since, timestamps=False: text)
    monkeypatch.setattr("tenants.previews.of_sync", lambda tenant_id, direction: [])


def routes() -> dict[str, URLPattern]:
    return {str(one.name): one for one in urlpatterns}


def url_of(name: str, world: dict[str, Any]) -> str:
    wanted = routes()[name].pattern.converters  # type: ignore[attr-defined]
    return reverse(name, kwargs={part: {"number": 1, **world}[part] for part in wanted})


def member(name: str, group: str | None, **more: Any) -> User:
    user = User.objects.create_user(name, password="a long password", **more)
    if group:
        user.groups.add(Group.objects.get_or_create(name=group)[0])
    return user


def test_every_route_is_known_here():
    assert set(routes()) == OPEN | OF_A_SESSION | PAGES | ADMIN_ACTIONS | OPERATOR_ACTIONS | VIEWER_ACTIONS


@pytest.mark.parametrize("role", ["nobody", "customer", "viewer", "operator", "admin"])
def test_each_page_and_action_is_for_its_role_and_above(client, world, role):
    rank = {"nobody": -2, "customer": -1, "viewer": 0, "operator": 1, "admin": 2}[role]
    if role != "nobody":
        client.force_login(member("u", role if role != "customer" else None, is_staff=role != "customer"))
    least = dict.fromkeys(VIEWER_PAGES | VIEWER_ACTIONS, 0) | dict.fromkeys(OPERATOR_PAGES | OPERATOR_ACTIONS, 1)
    least |= dict.fromkeys(ADMIN_PAGES | ADMIN_ACTIONS, 2)
    before = Assignment.objects.values_list("state", flat=True)
    states = list(before)
    for name, needed in least.items():
        if name in PAGES or rank < needed:
            answer = client.get(url_of(name, world)) if name in PAGES else client.post(url_of(name, world))
            if rank >= needed:
                assert answer.status_code == 200, name
            elif role == "nobody":
                assert answer.status_code == 302, name
                assert answer.headers["Location"].startswith("/login/?next="), name
            else:
                assert answer.status_code == 403, name
        if name not in PAGES:  # a question, if the role may act
            may_be = {200, 303, 404, 405} if rank >= needed else {302, 403, 405}
            assert client.get(url_of(name, world)).status_code in may_be, name
    assert list(before.all()) == states


def test_pages_hold_no_inline_script_no_markup_of_others_and_no_secret(client, world):
    client.force_login(User.objects.create_superuser("ada"))
    seen = 0
    for name in sorted(PAGES):
        query = {"pool": ["", "?tab=usage", "?tab=configuration", "?tab=timeline", "?state=idle&sort=-age&q=x&page=9"]}
        for more in query.get(name, [""]):
            page = client.get(url_of(name, world) + more).content.decode()
            assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", page), (name, more)
            assert "<script>alert" not in page, (name, more)
            assert SECRET not in page, (name, more)
            seen += HOSTILE.replace("<", "&lt;").replace(">", "&gt;") in page
    assert seen > 5


@pytest.mark.parametrize("tenant", ["pending", "a.b@c", "going", "stuck", "gone"])
def test_a_tenants_page_says_how_it_is(client, world, tenant):
    client.force_login(member("o", "operator", is_staff=True))
    page = client.get(reverse("tenant", args=[tenant])).content.decode()
    words = {
        "pending": ["Claiming", "Waiting for a container", "Cancel claim"],
        "a.b@c": ["Assigned", "In use:", "Sync now", "a save is overdue", "Secrets are never shown"],
        "going": ["Releasing", "Saving the state"],
        "stuck": ["Not saved", "Retry now", "Discard"],
        "gone": ["Released", "Nothing is saved", "Previous claims", "Nothing would be lost"],
    }[tenant]
    for word in words:
        assert word in page
    client.force_login(member("v", "viewer", is_staff=True))
    assert (
        'method="post"'
        not in client.get(reverse("tenant", args=[tenant])).content.decode().split("<main")[1].split("toasts")[0]
    )


def test_what_waits_for_the_engine_or_a_sink_takes_no_thread_of_the_others(world):
    from boilerhouse.web.asgi_handler import _lane

    def lane(path: str) -> str:
        return _lane({"path": path, "headers": []})

    slow = {name for name in PAGES | OPERATOR_ACTIONS if lane(url_of(name, world)) == "slow"}
    assert slow == {
        "node-part",
        "container", "container-logs", "new-spec", "edit-spec", "sync-probe", "new-workload",
        "edit-workload", "tenant-sync", "pool-claim", "load-example", "use-built-in-s3",
        "tenant-files", "tenant-file", "tenant-file-download", "tenant-file-archive", "tenant-file-edit", "tenant-file-move",
        "tenant-file-remove", "tenant-file-directory", "tenant-file-upload",
    }  # fmt: skip
    assert lane("/api/v1/tenants/x/claim") == "claim"
    assert lane("/no/such/page") == ""


def test_what_is_not_there_is_404_with_a_way_on(client, world):
    client.force_login(User.objects.create_superuser("ada"))
    for path in (
        "/pools/none/", "/tenants/none/", "/sync/specs/none/", "/sync/runs/00000000-0000-7000-8000-000000000000/", "/workloads/none/", "/containers/00000000-0000-7000-8000-000000000000/",
        "/no/such/page",
    ):  # fmt: skip
        answer = client.get(path)
        assert answer.status_code == 404, path
        assert "Go to the overview" in answer.content.decode()
    assert client.get("/tenants/..%2fx/").status_code in (404, 422)


def test_lists_filter_search_sort_and_page_by_url(client, world):
    client.force_login(User.objects.create_superuser("ada"))
    page = client.get("/tenants/?state=assigned").content.decode()
    assert "a.b@c" in page
    assert "stuck" not in page.split("<tbody>")[1]
    assert "state: Assigned" in page
    assert "No matches" in client.get("/tenants/?q=nobody-is-called-so").content.decode()
    for junk in (
        "?page=-1",
        "?page=x",
        "?sort=evil",
        "?state=none",
        "?page=%00",
        "?q=%00%27",
        "?page=99999999999999999999",
    ):
        assert client.get("/tenants/" + junk).status_code == 200, junk
        assert client.get("/activity/" + junk).status_code == 200, junk
    pool = world["pool"]
    for _ in range(60):
        make_container(pool)
    first = client.get("/pools/p1/?sort=-age").content.decode()
    assert "50 of 64" in first
    following = re.search(r'href="(\?[^"]*after=[^"]*)"', first)
    assert following
    assert "14 of 64" in client.get(f"/pools/p1/{following[1].replace('&amp;', '&')}").content.decode()


def test_the_search_finds_by_parts_and_goes_straight_to_the_one(client, world):
    client.force_login(User.objects.create_superuser("ada"))
    assert client.get("/search?q=p1").headers["Location"] == "/pools/p1/"
    short = f"c-{str(world['container_id'])[-8:]}"
    assert str(world["container_id"]) in client.get(f"/search?q={short}").headers["Location"]
    assert str(world["container_id"]) in client.get(f"/search?q={short[3:]}").content.decode()
    assert "a.b@c" in client.get("/search?q=b@").content.decode()
    assert "No results for" in client.get("/search?q=zzz").content.decode()
    assert client.get("/search?q=%00").status_code == 200


def test_forms_keep_what_was_typed_and_say_what_is_wrong(client, world):
    client.force_login(User.objects.create_superuser("ada"))
    answer = client.post("/pools/p1/configure", {"name": "n", "minSize": "40", "maxSize": "7", "minIdle": "x"})
    page = answer.content.decode()
    assert answer.status_code == 422
    assert 'value="40"' in page
    assert "Not saved" in page
    world["pool"].refresh_from_db()
    assert world["pool"].max_size == 10
    answer = client.post("/pools/new", {"workloadId": "none", "minSize": "1", "maxSize": "2"})
    assert answer.status_code == 422
    assert "There is no such workload" in answer.content.decode()
    assert client.post("/pools/new", {"id": "p1", "workloadId": "w1", "maxSize": "2"}).status_code == 422


def test_a_pool_is_made_changed_and_scaled(client, world):
    client.force_login(member("olga", "operator", is_staff=True))
    answer = client.post(
        "/pools/new", {"id": "new", "workloadId": "w1", "minSize": "1", "maxSize": "4", "onUnhealthy": "report"}
    )
    assert answer.status_code == 303, answer.content.decode()
    assert answer.headers["Location"] == "/pools/new/"
    made = world["pool"].__class__.objects.get(pk="new")
    assert (made.min_size, made.max_size) == (1, 4)
    form = {"name": "n", "minSize": "1", "maxSize": "6", "minIdle": "2", "idleTimeoutMs": "0", "onUnhealthy": "release"}
    assert client.post("/pools/new/configure", form).status_code == 303
    made.refresh_from_db()
    assert (made.max_size, made.min_idle, made.on_unhealthy) == (6, 2, "release")
    client.post("/pools/new/scale", {"targetSize": "5"})
    made.refresh_from_db()
    assert made.target_size == 5
    page = client.get("/pools/new/effect?targetSize=5").content.decode()
    assert "Starts <b>5</b>" in page
    assert "Scale to 5" in page
    assert "Enter 1 to 6." in client.get("/pools/new/effect?targetSize=99").content.decode()
    page = client.post("/pools/new/scale", {"targetSize": "99"}, follow=True).content.decode()
    assert 'value="99"' in page
    assert "Enter 1 to 6." in page
    made.refresh_from_db()
    assert made.target_size == 5
    from boilerhouse.core.models import AuditEntry

    assert set(AuditEntry.objects.filter(object_id="new").values_list("actor", flat=True)) == {"user olga"}


def test_a_pool_is_deleted_only_when_its_id_was_typed(client, world):
    client.force_login(User.objects.create_superuser("ada"))
    page = client.post("/pools/p1/delete", {"typed": "p2"}, follow=True).content.decode()
    assert "Confirmation did not match p1; nothing was done." in page
    world["pool"].refresh_from_db()
    assert not world["pool"].is_deleting


def test_workloads_and_specs_are_edited_as_json_and_a_change_meanwhile_is_noticed(client, world):
    client.force_login(User.objects.create_superuser("ada"))
    page = client.get("/workloads/w1/edit?tab=json").content.decode()
    seen = re.search(r'name="seen" value="(\w+)"', page).group(1)  # type: ignore[union-attr]
    text = _text(page)
    changed = json.dumps({**json.loads(text), "name": "renamed", "stopTimeoutMs": 2000})
    answer = client.post("/workloads/w1/edit", {"json": changed, "seen": seen})
    assert answer.status_code == 303, answer.content.decode()
    answer = client.post("/workloads/w1/edit", {"json": changed, "seen": seen})
    assert answer.status_code == 409
    assert "ada saved a change" in answer.content.decode()
    assert "Compare" in client.get("/workloads/w1/").content.decode()
    assert "-  &quot;stopTimeoutMs" in client.get("/workloads/w1/?compare=1").content.decode()
    for bad, words in (
        ("{", "Invalid JSON"),
        ("[]", "dictionary"),
        ('{"name": "x", "evil": 1}', "/evil"),
        ("[" * 9999, "nested"),
        ('{"a": NaN}', "NaN"),
    ):
        answer = client.post("/workloads/new", {"json": bad})
        assert answer.status_code == 422, bad[:20]
        assert words in answer.content.decode(), bad[:20]
    page = client.get("/sync/specs/s1/edit?tab=json").content.decode()
    assert "test-secret" not in page
    seen = re.search(r'name="seen" value="(\w+)"', page).group(1)  # type: ignore[union-attr]
    spec = json.loads(_text(page))
    spec["mappings"][0]["mode"] = "copy"
    answer = client.post("/sync/specs/s1/edit", {"json": json.dumps(spec), "seen": seen})
    assert answer.status_code == 303, answer.content.decode()
    other = json.dumps({**spec, "poolId": "other"})
    assert client.post("/sync/specs/s1/edit", {"json": other, "seen": seen}).status_code == 422


def _text(page: str) -> str:
    import html

    return html.unescape(page.split("<textarea")[1].split(">", 1)[1].split("</textarea>")[0])


def test_a_key_is_shown_once_and_a_stored_secret_never(client, world):
    client.force_login(User.objects.create_superuser("ada"))
    answer = client.post("/settings/keys/", {"name": "robot", "role": "tenant", "tenantIds": "t1, t2", "expiresAt": ""})
    key = re.search(r'id="new-key">(bh_\w+)<', answer.content.decode())
    assert key, answer.content.decode()
    assert answer["Cache-Control"] == "no-store"
    found = api_keys.find_key(key.group(1))
    assert found.tenant_ids == ["t1", "t2"]
    assert key.group(1) not in client.get("/settings/keys/").content.decode()
    client.post(f"/settings/keys/{found.pk}/revoke")
    found.refresh_from_db()
    assert found.revoked_at
    answer = client.post("/settings/keys/", {"name": "", "role": "tenant"})
    assert answer.status_code == 422
    answer = client.post("/settings/credentials/", {"name": "", "accessKeyId": "A", "secretAccessKey": SECRET})
    assert answer.status_code == 422
    assert SECRET not in answer.content.decode()
    answer = client.post(
        "/settings/credentials/", {"id": "c2", "name": "n", "accessKeyId": "A", "secretAccessKey": SECRET}, follow=True
    )
    assert SECRET not in answer.content.decode()
    assert credentials.find("c2").secret["secretAccessKey"] == SECRET
    assert "/settings/credentials/c2/" in client.get("/settings/credentials/").content.decode()
    client.post("/settings/credentials/c2/delete", {"typed": "c2"})
    assert "/settings/credentials/c2/" not in client.get("/settings/credentials/").content.decode()


def test_settings_are_changed_within_the_environments_ceiling(client, world):
    client.force_login(User.objects.create_superuser("ada"))
    page = client.get("/settings/deployment/?tab=json").content.decode()
    seen = re.search(r'name="seen" value="(\w+)"', page).group(1)  # type: ignore[union-attr]
    values = json.loads(_text(page))
    answer = client.post(
        "/settings/deployment/", {"json": json.dumps({**values, "allowHostNetwork": True}), "seen": seen}
    )
    assert answer.status_code == 422
    assert "BOILERHOUSE_ALLOW_HOST_NETWORK" in answer.content.decode()
    answer = client.post(
        "/settings/deployment/", {"json": json.dumps({**values, "variables": {"REGION": "x"}}), "seen": seen}
    )
    assert answer.status_code == 303, answer.content.decode()
    assert "REGION" in client.get("/settings/deployment/").content.decode()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/", "Nothing runs yet"), ("/pools/", "No pool"), ("/pools/new", "No workloads yet"), ("/tenants/", "No tenants yet"),
        ("/sync/", "Nothing is running."), ("/sync/specs/", "No sync specs yet"), ("/workloads/", "No workloads yet"),
        ("/activity/", "No events yet"), ("/settings/keys/", "No keys yet"), ("/settings/changes/", "No changes yet"),
        ("/settings/credentials/", "No credentials yet"), ("/sync/specs/new", "No pools yet"),
        ("/search?q=x", "No results for"),
    ],
)  # fmt: skip
def test_a_page_of_nothing_says_what_would_be_there(client, db, data_dir, path, words):
    client.force_login(User.objects.create_superuser("ada"))
    assert words in client.get(path).content.decode()


def test_an_engine_that_is_away_is_said_and_the_page_stands(client, world, monkeypatch):
    from pools.errors import EngineUnavailable

    def away(*_: Any, **__: Any) -> bytes:
        raise EngineUnavailable("The container engine does not answer.")

    monkeypatch.setattr("tenants.activity.logs", away)
    client.force_login(User.objects.create_superuser("ada"))
    page = client.get(url_of("container", world)).content.decode()
    assert "The container engine does not answer." in page
    assert "Usage" in page


def test_queries_do_not_grow_with_rows(client, world, django_assert_max_num_queries):
    client.force_login(User.objects.create_superuser("ada"))
    pool = world["pool"]
    Event.objects.bulk_create(
        Event(type="container.claimed", pool_id="p1", tenant_id="a.b@c", payload={"source": "warm"})
        for _ in range(5000)
    )
    uids, version = range(300_000, 300_500), pool.workload.latest
    Container.objects.bulk_create(
        Container(pool=pool, version=version, node=make_node(), uid=uid, state="claimed") for uid in uids
    )
    for number, one in enumerate(Container.objects.filter(uid__in=uids)):
        tenant = Tenant.objects.create(id=f"t{number}")
        Assignment.objects.create(
            tenant=tenant, pool=pool, generation=1, state="assigned", deadline=timezone.now(), container=one,
            container_ref=one.pk, assigned_at=timezone.now(),
        )  # fmt: skip
        emit("pool.scaled", pool_id="p1")
    for name in sorted(PAGES - {"container-logs", "pool-effect", "node-part"}):
        client.get(url_of(name, world))  # what a process keeps for a while, such as the weeks, is read
        with django_assert_max_num_queries(34) as counted:
            assert client.get(url_of(name, world)).status_code == 200
        print(name, len(counted))


REFRESH = {"HX-Request": "true", "HX-Target": "main"}


def test_a_refresh_is_the_navigation_and_what_the_page_shows(client, world, monkeypatch):
    """Only the fragment is rendered, with the same content as in the whole page."""
    now = timezone.now()
    monkeypatch.setattr("django.utils.timezone.now", lambda: now)
    client.force_login(User.objects.create_superuser("ada"))
    for name in sorted(PAGES - {"container-logs", "pool-effect", "node-part"}):
        whole = client.get(url_of(name, world))
        part = client.get(url_of(name, world), headers=REFRESH)
        assert part.status_code == whole.status_code == 200, name
        assert {"HX-Request", "HX-Target"} <= set(part.headers["Vary"].split(", ")), name
        assert _main(part) == _main(whole), name
        text = part.content.decode()
        assert text.count('id="nav"') == text.count('id="main"') == 1, name
        for more in ("<head>", "<symbol", "<dialog", 'id="toasts"', 'class="side"'):
            assert more not in text, (name, more)
        assert len(part.content) < len(whole.content) - 10_000, name


def test_a_refresh_leaves_what_is_to_be_said_to_the_next_page(client, world):
    client.force_login(User.objects.create_superuser("ada"))
    client.post("/pools/p1/pause")
    assert "toast" not in client.get("/pools/p1/", headers=REFRESH).content.decode()
    assert 'data-toast="success"' in client.get("/pools/p1/").content.decode()


def test_a_refresh_of_somebody_who_is_signed_out_is_no_part_of_a_page(client, world):
    """static/app.js reloads the page if the answer has no navigation."""
    answer = client.get("/pools/p1/", headers=REFRESH, follow=True)
    assert 'id="nav"' not in answer.content.decode()
    assert "Sign in" in answer.content.decode()


def _main(answer: Any) -> str:
    """The page's ``main`` without the tokens and ids of its forms, which change each time, and without digests: that
    of a log is of its lines, which a refresh does not have."""
    text = re.search(r"<main\b.*</main>", answer.content.decode(), re.DOTALL)
    assert text
    without_log = re.sub(r'(id="log-keep">).*?(<div class="card-f">)', r"\1</div>\2", text[0], flags=re.DOTALL)
    without_log = re.sub(r"\s+", " ", without_log)  # an open page keeps its log
    without_digests = re.sub(r' data-etag="\w*"', "", without_log)
    return re.sub(r'(name="(?:csrfmiddlewaretoken|form_id)" value=")[^"]*', r"\1", without_digests)
