"""The Django admin: the pages that each role sees, and actions that are confirmed, go through the services and are
recorded."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.contrib.staticfiles import finders
from django.core.management import call_command
from django.test import RequestFactory
from django.urls import reverse
from django.utils import timezone

from boilerhouse.core import api_keys
from boilerhouse.core.models import AuditEntry, Role
from boilerhouse.dashboard.admin_site import GROUPS
from pools.models import Pool
from tenants.models import Assignment, Tenant
from tests.make import make_container, make_pool, make_sync_spec
from tests.pages import text_of

OURS = {"core", "pools", "syncing", "tenants", "notifications"}


def act(client: Any, model: str, action: str, *pks: object, **more: str) -> str:
    url = reverse(f"admin:{model}_changelist")
    answer = client.post(url, {"action": action, "_selected_action": [str(pk) for pk in pks], **more}, follow=True)
    assert answer.status_code == 200
    return answer.content.decode()


@pytest.fixture
def as_role(client, db, data_dir):
    call_command("migrate", verbosity=0)  # gives the groups their rights

    def sign_in(role: str) -> Any:
        user = User.objects.create_user(role, password="a long password", is_staff=True)
        user.groups.add(Group.objects.get(name=role))
        client.force_login(user)
        return client

    return sign_in


def test_every_list_can_be_searched_or_filtered_and_links_to_its_page(as_role):
    for model, options in admin.site._registry.items():
        if model._meta.app_label in OURS and model._meta.model_name not in (
            "certificateauthority",
            "deployment",
            "lease",
            "settings",
            "queuehealth",
        ):
            assert options.search_fields or options.list_filter, model
            assert options.list_display != ("__str__",), model
    client = as_role("admin")
    pool = make_pool("p")
    one = make_container(pool)
    for model, pk, page in (("pools_pool", "p", "/pools/p/"), ("pools_container", one.pk, f"/containers/{one.pk}/")):
        shown = client.get(reverse(f"admin:{model}_change", args=[pk])).content.decode()
        assert f'href="{page}"' in shown, model
        assert (
            reverse(f"admin:{model}_change", args=[pk]) in client.get(page).content.decode()
            or model == "pools_container"
        )


@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_the_admin_is_for_admins(as_role, role):
    """C28: its rows are more than the pages show to others, and its links confuse who cannot follow them."""
    client = as_role(role)
    make_pool("p")
    for name in ("index", "pools_pool_changelist", "core_apikey_changelist", "core_auditentry_changelist"):
        answer = client.get(reverse(f"admin:{name}"))
        assert answer.status_code == 403, name
        assert "You need the admin role" in answer.content.decode()
    form = {"action": "pause", "_selected_action": ["p"]}
    assert client.post(reverse("admin:pools_pool_changelist"), form).status_code == 403
    assert not Pool.objects.get(pk="p").is_paused
    assert not AuditEntry.objects.exists()
    for page in ("/settings/", "/pools/p/"):
        assert "/admin/" not in client.get(page).content.decode(), page


def test_who_is_not_signed_in_meets_the_dashboards_login_and_returns(client, db, data_dir):
    User.objects.create_superuser("ada", password="a long password")
    path = reverse("admin:pools_pool_changelist")
    answer = client.get(path, follow=True)
    assert answer.request["PATH_INFO"] == "/login/"
    form = {"username": "ada", "password": "a long password", "next": path}
    assert client.post("/login/", form).headers["Location"] == path
    client.logout()
    assert "evil" not in client.get("/admin/login/?next=https://evil.example/").headers["Location"]


def test_its_index_groups_models_by_meaning_and_leaves_none_out(as_role):
    client = as_role("admin")
    page = text_of(client.get(reverse("admin:index")))
    for name in (*GROUPS, "Back to the dashboard"):
        assert name in page
    assert "AXES" not in page.upper()
    shown = set(re.findall(r'href="(/admin/[^"#]+/)"', page))
    request = RequestFactory().get("/admin/")
    request.user = User.objects.get()
    for model, options in admin.site._registry.items():
        if options.has_view_permission(request):
            assert reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist") in shown, model


def test_its_pages_need_no_looser_policy_and_no_theme_of_their_own(as_role):
    client = as_role("admin")
    client.cookies["theme"] = "dark"
    make_pool("p")
    for name, args in (("index", []), ("pools_pool_changelist", []), ("pools_pool_change", ["p"])):
        answer = client.get(reverse(f"admin:{name}", args=args))
        page = answer.content.decode()
        assert "unsafe" not in answer["Content-Security-Policy"]
        assert not re.search(r"<script(?![^>]*\bsrc=)(?![^>]*application/json)|<style|\sstyle=|\son\w+=", page), name
        assert "theme-dark" in page
        assert "/js/theme." not in page
        assert re.search(r"/static/admin\.\w+\.css", page)


def test_it_says_when_by_a_clock_of_24_hours_and_no_by_a_dash(as_role):
    client = as_role("admin")
    pool = make_pool("p")
    type(pool).objects.update(created_at=datetime(2026, 1, 31, 15, 4, 5, tzinfo=UTC))
    page = client.get(reverse("admin:pools_pool_change", args=["p"])).content.decode()
    assert "2026-01-31 15:04:05" in page
    assert "p.m." not in page
    no = finders.find("admin/img/icon-no.svg")
    assert no
    assert "static/admin" in no
    assert "contrib" not in no


def test_users_are_changed_on_the_pages_alone(client, db, data_dir):
    ada = User.objects.create_superuser("ada", password="a long password")
    client.force_login(ada)
    page = client.get(reverse("admin:auth_user_change", args=[ada.pk])).content.decode()
    assert f"/settings/users/{ada.pk}/" in page
    assert "pbkdf2" not in page
    assert ada.password not in page
    assert client.post(reverse("admin:auth_user_change", args=[ada.pk]), {"is_superuser": ""}).status_code == 403
    assert client.post(reverse("admin:auth_user_delete", args=[ada.pk]), {"post": "yes"}).status_code == 403
    assert User.objects.filter(is_superuser=True).exists()


def test_actions_go_through_the_services_and_are_recorded_with_the_user(as_role):
    client = as_role("admin")
    make_pool("p")
    make_pool("q")
    assert "2 of 2" in act(client, "pools_pool", "pause", "p", "q")
    assert Pool.objects.filter(is_paused=True).count() == 2
    assert "1 of 1" in act(client, "pools_pool", "resume", "p")
    assert set(AuditEntry.objects.values_list("actor", flat=True)) == {"user admin"}
    assert "1 of 1" in act(client, "pools_pool", "refill", "p")


def test_what_others_feel_is_asked_about_first(as_role):
    client = as_role("admin")
    make_pool("p")
    page = act(client, "pools_pool", "drain", "p")
    assert "New claims are refused" in page
    assert not Pool.objects.get(pk="p").is_draining
    act(client, "pools_pool", "drain", "p", confirmed="yes")
    assert Pool.objects.get(pk="p").is_draining


def test_what_fails_is_told_row_by_row(as_role):
    client = as_role("admin")
    pool = make_pool("p")
    rows = []
    for tenant, state in (("busy", "assigned"), ("stuck", "release_failed")):
        one = make_container(pool, state="claimed")
        rows.append(
            Assignment.objects.create(
                tenant=Tenant.objects.create(id=tenant),
                pool=pool,
                generation=1,
                state=state,
                deadline=timezone.now(),
                container=one,
                container_ref=one.pk,
                version=one.version,
                uid=one.uid,
                step="saving",
            )
        )
    page = act(client, "tenants_assignment", "retry", *[row.pk for row in rows])
    assert "1 of 2" in page
    assert "The assignment has no failed save" in page
    starting = make_container(pool, state="starting")
    page = act(client, "pools_container", "remove", starting.pk, confirmed="yes")
    assert "0 of 1" in page
    make_sync_spec(pool, id="s", allow_manual_trigger=False)
    assert "0 of 1" in act(client, "syncing_syncspec", "sync", "s")
    assert "0 of 1" in act(client, "tenants_tenant", "sync", "stuck")


def test_keys_are_revoked_by_admins_only(as_role):
    row, key = api_keys.create_key(name="k", role=Role.VIEWER)
    client = as_role("admin")
    act(client, "core_apikey", "revoke", row.pk, confirmed="yes")
    assert api_keys.find_key(key) is None
