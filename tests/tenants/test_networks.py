"""A tenant's own network policy in the API: within the pool's policy, and kept while the tenant has its container."""

from __future__ import annotations

import pytest
from django_q.models import OrmQ

from boilerhouse.core.models import AuditEntry, Role
from pools.models import Container
from pools.states import ContainerState
from tenants.api import network_views
from tenants.models import Assignment
from tenants.states import AssignmentState
from tests.make import make_container, make_held, make_pool, make_workload


@pytest.fixture(autouse=True)
def _no_worker_answers(monkeypatch):
    monkeypatch.setattr(network_views, "WAIT_S", 0.1)


@pytest.fixture
def held(call):
    pool = make_pool(egress={"mode": "internet", "allow": ["10.0.5.7:5432"]})
    return make_held(pool, latency_ms=1)


def test_a_running_containers_policy_is_changed_within_the_pools(call, held):
    shown = call("GET", "tenants/alice/network").json()
    assert shown == {"mode": "internet", "allow": ["10.0.5.7:5432"], "isOwn": False, "inForce": True, "names": []}
    OrmQ.objects.all().delete()
    changed = call("PUT", "tenants/alice/network", {"allow": ["api.example.com:443", "10.0.5.7/32:5432"]})

    # No worker takes it up in this test: the answer says so.
    policy = {"mode": "list", "allow": ["api.example.com:443", "10.0.5.7:5432"]}
    assert changed.json() == {**policy, "isOwn": True, "inForce": False, "names": []}
    assert call("GET", "tenants/alice/network").json() == changed.json()
    assert Container.objects.get().egress == policy
    assert OrmQ.objects.count() == 2
    call("PUT", "tenants/alice/network", policy)
    assert OrmQ.objects.count() == 2  # nothing more was asked
    assert AuditEntry.objects.get(action="tenant.network").after == {"egress": policy}


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"mode": "open"}, "/mode"), ({"allow": ["10.0.5.8:5432"]}, "/allow/0"), ({"allow": ["10.0.5.7"]}, "/allow/0"),
        ({"mode": "internet", "allow": ["10.0.5.0/24:5432"]}, "/allow/0"), ({"allow": ["nonsense"]}, "/allow/0"),
        ({"mode": "none", "allow": ["192.0.2.1"]}, "/allow"), ([], ""),
    ],
)  # fmt: skip
def test_what_is_wider_or_nonsense_is_refused_and_changes_nothing(call, held, settings, body, pointer):
    settings.BOILERHOUSE_ALLOW_OPEN_NETWORK = True
    answer = call("PUT", "tenants/alice/network", body)

    assert answer.status_code == 422
    assert [one["pointer"] for one in answer.json()["errors"]] == [pointer]
    assert Container.objects.get().egress is None
    assert Assignment.objects.get().egress is None


def test_who_holds_nothing_has_no_network(call):
    for method, body in (("GET", None), ("PUT", {"mode": "none"})):
        assert call(method, "tenants/bob/network", body).json()["code"] == "not_assigned"


def test_a_tenants_key_changes_its_own_policy_alone(call, held):
    make_held(held.pool, "bob", latency_ms=1)
    key = call.key_of(Role.TENANT, tenant_ids=["alice"])

    assert call("PUT", "tenants/alice/network", {"mode": "none"}, key=key).status_code == 200
    assert call("PUT", "tenants/bob/network", {"mode": "none"}, key=key).status_code == 404
    assert call("PUT", "tenants/alice/network", {"mode": "none"}, key=call.key_of(Role.VIEWER)).status_code == 403


def test_a_tenants_key_takes_back_nothing_that_others_narrowed(call, held):
    """The most restrictive policy applies; a tenant's key can only narrow it."""
    key = call.key_of(Role.TENANT, tenant_ids=["alice"])
    listed = {"mode": "list", "allow": ["192.0.2.7:80", "192.0.2.8:80"]}
    assert call("PUT", "tenants/alice/network", listed).status_code == 200

    for wider in ({"mode": "internet"}, {"allow": ["192.0.2.9:80"]}, {"allow": ["10.0.5.7:5432"]}):
        answer = call("PUT", "tenants/alice/network", wider, key=key)
        assert answer.status_code == 422
        assert "set for this tenant" in answer.json()["errors"][0]["detail"]
        assert Container.objects.get().egress == listed
    for within in ({"mode": "none", "allow": []}, {"mode": "list", "allow": ["192.0.2.8:80"]}, listed):
        assert call("PUT", "tenants/alice/network", within, key=key).status_code == 200
        assert Container.objects.get().egress == within
    call("PUT", "tenants/alice/network", {"mode": "none"}, key=key)
    assert call("PUT", "tenants/alice/network", {"mode": "none"}).status_code == 200  # as it is, but not the tenant's
    assert call("PUT", "tenants/alice/network", listed, key=key).status_code == 422
    assert call("PUT", "tenants/alice/network", {"mode": "internet"}).status_code == 200
    assert call("PUT", "tenants/alice/network", listed, key=key).status_code == 200
    assert call("PUT", "tenants/alice/network", {"mode": "internet"}, key=key).status_code == 200


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.TENANT])
def test_a_claims_policy_binds_the_tenants_key_where_another_key_claimed(call, role):
    """A tenant cannot widen the policy of the platform's claim."""
    pool = make_pool()
    key = call.key_of(Role.TENANT, tenant_ids=["carol"])
    own = call.key_of(role) if role != Role.TENANT else key
    body = {"poolId": pool.pk, "network": {"egress": {"mode": "none"}}, "wait": False}
    assert call("POST", "tenants/carol/claim", body, key=own).status_code == 202
    container = make_container(pool, state=ContainerState.CLAIMED)
    Assignment.objects.update(
        state=AssignmentState.ASSIGNED, container=container, container_ref=container.pk, version=container.version,
        secrets=None,
    )  # fmt: skip
    answer = call("PUT", "tenants/carol/network", {"mode": "internet"}, key=key)

    assert answer.status_code == (200 if role == Role.TENANT else 422)


@pytest.mark.parametrize(
    ("egress", "pointer"),
    [({"mode": "open"}, "/network/egress/mode"), ({"allow": ["10.0.0.1"]}, "/network/egress/allow/0")],
)
def test_a_claim_that_asks_for_more_is_refused_and_holds_nothing(call, settings, egress, pointer):
    settings.BOILERHOUSE_ALLOW_OPEN_NETWORK = True
    pool = make_pool()
    answer = call("POST", "tenants/alice/claim", {"poolId": pool.pk, "network": {"egress": egress}})

    assert answer.status_code == 422
    assert [one["pointer"] for one in answer.json()["errors"]] == [pointer]
    assert not Assignment.objects.exists()


def test_no_policy_is_promised_where_none_is_enforced(call, held):
    pool = make_pool(workload=make_workload(security={"network_mode": "host"}))
    body = {"poolId": pool.pk, "network": {"egress": {"mode": "none"}}}
    (error,) = call("POST", "tenants/carol/claim", body).json()["errors"]

    assert error["code"] == "not_enforced"


def test_a_second_claim_says_that_another_policy_was_ignored(call, held):
    body = {"poolId": held.pool_id, "network": {"egress": {"mode": "none"}}}
    assert call("POST", "tenants/alice/claim", body).json()["ignored"] == ["network"]
    assert Container.objects.get(state=ContainerState.CLAIMED).egress is None
