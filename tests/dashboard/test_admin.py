"""The Django admin: the pages that each role sees, and actions that are confirmed, go through the services and are
recorded."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.core.management import call_command
from django.urls import reverse
from django.utils import timezone

from boilerhouse.core import api_keys
from boilerhouse.core.models import AuditEntry, Role
from pools.models import Pool
from tenants.models import Assignment, Tenant
from tests.make import make_container, make_pool, make_sync_spec

OURS = {"core", "pools", "syncing", "tenants"}


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


def test_viewers_may_look_but_not_act_and_not_see_keys(as_role):
    client = as_role("viewer")
    make_pool("p")
    assert client.get(reverse("admin:pools_pool_changelist")).status_code == 200
    assert client.get(reverse("admin:core_apikey_changelist")).status_code == 403
    assert client.get(reverse("admin:syncing_credential_changelist")).status_code == 403
    assert client.get(reverse("admin:core_auditentry_changelist")).status_code == 403
    assert "you need the role operator" in act(client, "pools_pool", "pause", "p")
    assert not Pool.objects.get(pk="p").is_paused
    assert not AuditEntry.objects.exists()


def test_actions_go_through_the_services_and_are_recorded_with_the_user(as_role):
    client = as_role("operator")
    make_pool("p")
    make_pool("q")
    assert "2 of 2" in act(client, "pools_pool", "pause", "p", "q")
    assert Pool.objects.filter(is_paused=True).count() == 2
    assert "1 of 1" in act(client, "pools_pool", "resume", "p")
    assert set(AuditEntry.objects.values_list("actor", flat=True)) == {"user operator"}
    assert "1 of 1" in act(client, "pools_pool", "refill", "p")


def test_what_others_feel_is_asked_about_first(as_role):
    client = as_role("operator")
    make_pool("p")
    page = act(client, "pools_pool", "drain", "p")
    assert "New claims are refused" in page
    assert not Pool.objects.get(pk="p").is_draining
    act(client, "pools_pool", "drain", "p", confirmed="yes")
    assert Pool.objects.get(pk="p").is_draining


def test_what_fails_is_told_row_by_row(as_role):
    client = as_role("operator")
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
