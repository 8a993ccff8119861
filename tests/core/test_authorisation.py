"""Every route of the URL table, called by every role. A new route fails until it is in ``MAY``."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.utils import timezone

from boilerhouse.core.api_keys import create_key
from boilerhouse.core.models import ApiKey, Role
from tests.access import ADMIN, MAY, TENANT
from tests.routes import ROUTES


def test_the_table_says_something_of_every_route_and_of_no_other():
    assert set(ROUTES) == {(route, method) for route, may in MAY.items() for method in may}


@pytest.fixture
def ask(client, db):
    def ask(method, route, key, tenant="own"):
        path = route.replace("tenants/*", f"tenants/{tenant}").replace("*", "x")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        body = "" if method in ("GET", "DELETE") else json.dumps({})
        return client.generic(method, f"/api/v1/{path}", body, content_type="application/json", headers=headers)

    return ask


def key_of(role, **more):
    return create_key(name=role, role=role, **more)[1]


@pytest.mark.any_database
@pytest.mark.parametrize(("route", "method"), ROUTES)
def test_nobody_gets_in_without_a_living_key(ask, route, method):
    revoked, expired = key_of(ADMIN), key_of(ADMIN, expires_at=timezone.now() - timedelta(seconds=1))
    ApiKey.objects.filter(pk=revoked[3:11]).update(revoked_at=timezone.now())
    other_checksum = revoked[:-1] + ("a" if revoked[-1] != "a" else "b")
    for key in (None, "", "nonsense", "bh_" + "0" * 46, other_checksum, revoked, expired):
        answer = ask(method, route, key)

        assert answer.status_code == 401, (key, answer.content)
        assert answer["WWW-Authenticate"].startswith("Bearer")
        assert answer["Content-Type"] == "application/problem+json"


@pytest.mark.any_database
@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(("route", "method"), ROUTES)
def test_a_role_may_what_the_table_says(ask, route, method, role):
    """Among others: only admins read the audit log."""
    key = key_of(role, tenant_ids=["own"] if role == TENANT else None)
    answer = ask(method, route, key)

    if role in MAY[route][method]:
        assert answer.status_code not in (401, 403), answer.content
    else:
        assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied"), answer.content


@pytest.mark.any_database
@pytest.mark.parametrize(("route", "method"), [one for one in ROUTES if one[0].startswith("tenants/")])
def test_another_tenants_things_are_not_there(ask, route, method):
    """404, not 403: the caller must not learn whether the tenant exists."""
    answer = ask(method, route, key_of(TENANT, tenant_ids=["own"]), tenant="other")

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), answer.content


@pytest.mark.parametrize("path", ["health", "openapi.json", "docs"])
def test_what_is_public_needs_no_key(client, db, path):
    assert client.get(f"/api/v1/{path}").status_code == 200
