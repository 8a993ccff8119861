"""P12, ADR 67: an action of a page that fails has changed nothing, and says nothing of what it did."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.messages import get_messages
from django.db import OperationalError
from django.test import Client
from django.urls import URLPattern
from django.utils import timezone

from boilerhouse.core import events, users
from boilerhouse.core.models import ApiKey, Node
from boilerhouse.dashboard import access
from boilerhouse.dashboard.urls import urlpatterns
from pools.models import Pool
from syncing.models import Backup, SyncRun, SyncSpec
from syncing.states import Direction, Trigger
from tests.forms import form_of
from tests.make import (
    make_assignment,
    make_container,
    make_delivery,
    make_held,
    make_node,
    make_pool,
    make_spec,
    make_sync_spec,
    make_workload,
)
from tests.snapshot import every_row

pytestmark = pytest.mark.postgresql

NO_ROWS = {"set-theme", "set-times"}
"""They set a cookie."""
SIGNING_IN = {
    "login": "a failed login is recorded, and must stay so",
    "logout": "Django ends the session before the redirect",
    "password_change": "inside, by its class",
    "one-time-login": "a GET, with a transaction of its own",
    "set-password": "inside, by its class",
}
OUTSIDE = {
    "containers-remove", "release-many", "sync-probe", "tenant-erase", "pool-claim", "load-example", "use-built-in-s3", "node-backup",
    "notification-test",
    "tenant-file-edit", "tenant-file-move", "tenant-file-directory", "tenant-file-upload", "tenant-file-remove",
}  # fmt: skip
"""They say why in their decorator."""
EDITORS = {"new-workload", "edit-workload", "new-spec", "edit-spec", "settings-deployment"}
"""Their forms are read from their pages."""
CASES: dict[str, tuple[str, dict[str, str]]] = {
    "new-pool": ("/pools/new", {"id": "made", "workloadId": "spare", "minSize": "1", "maxSize": "2"}),
    "pool-configure": ("/pools/notes/configure", {"minSize": "0", "maxSize": "30"}),
    "pool-scale": ("/pools/notes/scale", {"targetSize": "7"}),
    "pool-pause": ("/pools/notes/pause", {}),
    "pool-resume": ("/pools/notes/resume", {}),
    "pool-drain": ("/pools/notes/drain", {}),
    "pool-delete": ("/pools/notes/delete", {"typed": "notes"}),
    "container-remove": ("/containers/{container}/remove", {}),
    "tenant-release": ("/tenants/carol/release", {}),
    "tenant-discard": ("/tenants/carol/discard", {"typed": "carol"}),
    "tenant-sync": ("/tenants/carol/sync", {"direction": "outward"}),
    "backup-put-back": ("/tenants/dave/backups/{backup}/put-back", {}),
    "tenant-forget": ("/tenants/erin/forget", {"typed": "erin"}),
    "need-retry": ("/needs/retry", {"key": "unsaved:frank"}),
    "need-start": ("/needs/start", {"key": "pool:notes:start_failed"}),
    "run-cancel": ("/sync/runs/{run}/cancel", {}),
    "new-workload": ("/workloads/new", {"do": "save", "/id": "made", "/name": "made", "/image": "i:1"}),
    "edit-workload": ("/workloads/spare/edit", {"do": "save", "/name": "other"}),
    "workload-roll-back": ("/workloads/spare/versions/1/roll-back", {}),
    "workload-refresh": ("/workloads/spare/refresh", {}),
    "delete-workload": ("/workloads/spare/delete", {"typed": "spare"}),
    "new-spec": ("/sync/specs/new?pool=notes", {"do": "save"}),
    "edit-spec": ("/sync/specs/notes/edit", {"do": "save", "/name": "other", "force": "yes"}),
    "sync-trigger": ("/sync/specs/notes/trigger", {}),
    "delete-spec": ("/sync/specs/notes/delete", {"typed": "notes"}),
    "notifications": (
        "/settings/notifications/",
        {"name": "m", "type": "email", "recipients": "a@example.com", "kinds": "sink_down"},
    ),
    "notification": ("/settings/notifications/ops/", {"name": "other", "kinds": "sink_down"}),
    "notification-mute": ("/settings/notifications/ops/mute", {"for": "3600"}),
    "delete-notification": ("/settings/notifications/ops/delete", {"typed": "ops"}),
    "notification-resend": ("/settings/notifications/ops/deliveries/{delivery}/resend", {}),
    "mute-cause": ("/causes/mute", {"key": "node:n", "for": "3600"}),
    "node-cordon": ("/nodes/{node}/cordon", {}),
    "node-uncordon": ("/nodes/{cordoned}/uncordon", {}),
    "node-drain": ("/nodes/{node}/drain", {"typed": "spare"}),
    "node-lost": ("/nodes/{off}/lost", {"typed": "off"}),
    "settings-keys": ("/settings/keys/", {"name": "k", "role": "viewer"}),
    "rotate-key": ("/settings/keys/{key}/rotate", {"overlap": "3600"}),
    "revoke-key": ("/settings/keys/{key}/revoke", {}),
    "users": ("/settings/users/", {"name": "newcomer", "role": "viewer"}),
    "user-role": ("/settings/users/{user}/role", {"role": "operator"}),
    "user-disable": ("/settings/users/{user}/disable", {}),
    "user-enable": ("/settings/users/{user}/enable", {}),
    "user-end-sessions": ("/settings/users/{user}/end-sessions", {}),
    "user-new-password": ("/settings/users/{user}/new-password", {}),
    "account-end-session": ("/settings/account/sessions/{session}/end", {}),
    "account-end-others": ("/settings/account/end-others", {}),
    "credentials": ("/settings/credentials/", {"name": "n", "accessKeyId": "A", "secretAccessKey": "S"}),
    "credential": ("/settings/credentials/storage/", {"name": "m", "accessKeyId": "B", "secretAccessKey": "T"}),
    "delete-credential": ("/settings/credentials/storage/delete", {"typed": "storage"}),
    "registries": ("/settings/registries/", {"registry": "o.example.net", "username": "u", "password": "p"}),
    "registry-credential": ("/settings/registries/registry/", {"name": "m", "username": "v", "password": "q"}),
    "delete-registry-credential": ("/settings/registries/registry/delete", {"typed": "registry"}),
    "settings-deployment": ("/settings/deployment/", {"do": "save"}),
    "password_change": (
        "/password/",
        {"old_password": "long-enough-1", "new_password1": "another-one-2", "new_password2": "another-one-2"},
    ),
}


class Broken(Exception):
    """Something that nobody foresaw."""


@pytest.fixture
def place(db, data_dir, fake_engine, client, call, monkeypatch):
    """What the cases change, and a signed-in admin; returns the path of a case."""
    from pools import registry_credentials
    from syncing import credentials

    monkeypatch.setattr("syncing.services.probe", lambda spec, **_: {"state": "unhealthy"})
    admin = User.objects.create_superuser("root", password="long-enough-1")
    client.force_login(admin)
    spare = make_workload("spare")
    spare.versions.create(number=2, spec_json=make_spec(stop_timeout_ms=2000).to_json())
    pool = make_pool(
        "notes", workload=make_workload("notes"), max_size=20, trouble="start_failed", last_error="No image.", failures=2
    )  # fmt: skip
    spec = make_sync_spec(pool, id="notes", sink={"prefix": "notes/${tenantId}/"})
    credentials.create(id="storage", name="S", access_key_id="A", secret_access_key="S")
    registry_credentials.create(
        id="registry", name="R", registry="registry.example.net", secret={"username": "u", "password": "p"}
    )
    held = make_held(pool, "carol")
    make_assignment(
        "frank", pool=pool, state="release_failed", outcome="unsaveable", container_ref=make_container(pool).pk
    )  # fmt: skip
    run = SyncRun.objects.create(
        spec=spec, tenant_id="carol", generation=held.generation, direction=Direction.DOWNLOAD, trigger=Trigger.MANUAL
    )
    for tenant in ("dave", "erin"):
        make_assignment(tenant, pool=pool, state="ended", outcome="state_missing" if tenant == "erin" else "")
    backup = Backup.objects.create(
        spec=spec, tenant_id="dave", container_path="/state", place="p", location="l", backup="b", files=1, bytes=1,
    )  # fmt: skip
    ids = {"delivery": make_delivery().pk, "run": run.pk, "backup": backup.pk, "container": make_container(pool).pk}
    ids["node"], ids["cordoned"] = make_node("spare").pk, make_node("cordoned").pk
    Node.objects.filter(pk=ids["cordoned"]).update(cordoned_at=timezone.now(), cordoned_by="user root")
    ids["off"] = make_node("off").pk
    Node.objects.filter(pk=ids["off"]).update(state="silent", heartbeat_at=timezone.now() - timedelta(hours=1))
    ids["key"] = ApiKey.objects.get(pk=call.key_of("viewer")[3:11]).pk
    ids["user"] = User.objects.create_user("colleague", password="long-enough-1", is_staff=True).pk
    other = Client()
    other.force_login(admin)
    ids["session"] = users.handle_of(other.session.session_key)
    return lambda path: path.format(**ids)


def _data(client: Any, name: str, path: str, more: dict[str, str]) -> dict[str, str]:
    if name not in EDITORS:
        return more
    data = form_of(client.get(path).content.decode()).dict()
    if name == "new-spec":
        data |= {"/sink/bucket": "other", "/sink/region": "r", "/sink/endpoint": "http://127.0.0.1:1"}
        data |= {"/sink/accessKeyId": "A", "/sink/secretAccessKey": "S", "/sink/prefix": "o/${tenantId}/"}
    if name == "settings-deployment":
        at = next(key for key in data if key.endswith("/eventsMs"))
        data[at], data[f"{at}:unit"] = "24", "h"
    return {**data, **more}


def view_breaks(patch: pytest.MonkeyPatch) -> None:
    original = access.changing

    def changing(request: Any, run: Any) -> Any:
        def breaks() -> None:
            run()
            raise Broken

        return original(request, breaks)

    patch.setattr(access, "changing", changing)
    patch.setattr("boilerhouse.dashboard.views.changing", changing)


def commit_breaks(patch: pytest.MonkeyPatch) -> None:
    original = events._flush

    def flush(pending: Any) -> None:
        original(pending)
        raise OperationalError("the database went away")

    patch.setattr(events, "_flush", flush)


def answer_is_an_error(patch: pytest.MonkeyPatch) -> None:
    original = access.changing

    def changing(request: Any, run: Any) -> Any:
        def refuses() -> Any:
            from django.http import HttpResponse

            run()
            return HttpResponse(status=422)

        return original(request, refuses)

    patch.setattr(access, "changing", changing)
    patch.setattr("boilerhouse.dashboard.views.changing", changing)


SLOW = [pytest.param(breaks, marks=pytest.mark.slow) for breaks in (commit_breaks, answer_is_an_error)]


@pytest.mark.parametrize("breaks", [view_breaks, *SLOW])
@pytest.mark.parametrize("name", sorted(CASES))
def test_an_action_that_fails_has_changed_nothing(client, place, name, breaks):
    path, more = CASES[name]
    path = place(path)
    client.raise_request_exception = False
    data = _data(client, name, path, more)
    before = every_row()
    with pytest.MonkeyPatch.context() as patch:
        breaks(patch)
        answer = client.post(path, data)
    assert answer.status_code >= 400
    assert every_row() == before
    assert not [str(one) for one in get_messages(answer.wsgi_request)], "nothing was done"
    answer = client.post(path, data)
    assert answer.status_code < 400, answer.content.decode()[-3000:]
    assert every_row() != before, "the case changes something, or the test would show nothing"


def test_every_form_is_inside_or_has_its_reason():
    found: dict[str, Any] = {one.name: one.callback for one in urlpatterns if isinstance(one, URLPattern) and one.name}
    assert len(found) == len(urlpatterns)
    pages = {name for name, view in found.items() if getattr(view, "is_page", False)}
    actions = {name: view.acts for name, view in found.items() if hasattr(view, "acts")}
    assert set(found) == pages | set(actions) | NO_ROWS | set(SIGNING_IN)
    assert {name for name, reason in actions.items() if reason} == OUTSIDE
    assert {name for name, reason in actions.items() if not reason} | {"password_change"} == set(CASES)


def test_a_page_takes_no_form(client, place):
    for one in urlpatterns:
        if getattr(one.callback, "is_page", False) and "<" not in str(one.pattern):
            assert client.post(f"/{one.pattern}").status_code == 405, one.name


def test_one_row_of_an_action_of_the_admin_is_undone_alone(client, place, monkeypatch):
    """Each row of an action is a transaction: one that is refused leaves nothing, and the others stay."""
    make_pool("other")

    def pause_and_refuse(pool_id: str) -> None:
        from boilerhouse.core.errors import Conflict
        from pools import services

        with events.recording():
            services._switch(pool_id, "pause", "paused", is_paused=True)
            if pool_id == "other":
                raise Conflict("No.")

    monkeypatch.setattr("pools.services.pause", pause_and_refuse)
    client.post("/admin/pools/pool/", {"action": "pause", "_selected_action": ["notes", "other"]})
    assert dict(Pool.objects.values_list("pk", "is_paused")) == {"notes": True, "other": False}


def test_the_admin_saves_and_logs_or_neither(client, place, monkeypatch):
    client.raise_request_exception = False
    before = every_row()
    with monkeypatch.context() as patch:
        patch.setattr("django.contrib.admin.ModelAdmin.log_addition", lambda *_, **__: 1 / 0)
        answer = client.post("/admin/auth/group/add/", {"name": "night shift"})
    assert answer.status_code == 500
    assert every_row() == before
    assert SyncSpec.objects.exists()
