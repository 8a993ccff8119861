"""A node that is drained: its tenants are saved and released a few at a time, and others take over what is idle."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.management import call_command
from django.db.models.functions import Now
from django_q.models import OrmQ

from boilerhouse.controller import controller
from boilerhouse.core import node_changes
from boilerhouse.core.models import AuditEntry, Event, Node
from boilerhouse.core.states import NodeState
from pools import host
from pools.models import Container, HostLease, Pool
from pools.states import ContainerState
from tenants import node_drains, node_removals
from tenants.models import Assignment
from tenants.states import AssignmentState, ReleaseStep
from tests.make import make_assignment, make_container, make_held, make_node, make_pool

pytestmark = [pytest.mark.any_database, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def pool(data_dir, fake_engine):
    return make_pool()


@pytest.fixture
def node(pool):
    return make_node()


def states():
    return dict(Assignment.objects.values_list("tenant_id", "state"))


def test_tenants_are_released_with_a_save_so_many_at_a_time(pool, node, monkeypatch):
    monkeypatch.setattr(node_drains, "SAVES_AT_ONCE", 2)
    for tenant in "abc":
        make_held(pool, tenant)
    make_held(pool, "elsewhere", container=make_container(pool, node="other", state=ContainerState.CLAIMED))
    node_changes.drain(node.pk, "new memory")
    assert controller.settle_lost_nodes() == 2
    assert controller.settle_lost_nodes() == 0, "two are being saved"
    assert sorted(states().values()) == ["assigned", "assigned", "releasing", "releasing"]
    Assignment.objects.filter(state="releasing").first().delete()
    assert controller.settle_lost_nodes() == 1
    assert states()["elsewhere"] == "assigned"
    row = Assignment.objects.filter(state="releasing").first()
    assert (row.reason, row.discard, row.step) == ("node_drained", False, ReleaseStep.STOPPING)


def test_tenants_may_go_on_until_the_deadline(pool, node):
    make_held(pool, "alice")
    node_changes.drain(node.pk, after=timedelta(minutes=5))
    controller.settle_lost_nodes()
    assert states() == {"alice": "assigned"}
    Node.objects.update(drains_at=Now())
    controller.settle_lost_nodes()
    assert states() == {"alice": "releasing"}


def test_idle_containers_are_removed_while_none_of_their_pool_is_starting(pool, node):
    idle = make_container(pool)
    starting = make_container(pool, node="other", state=ContainerState.STARTING)
    node_changes.drain(node.pk)
    controller.settle_lost_nodes()
    idle.refresh_from_db()
    assert idle.state == ContainerState.IDLE
    Container.objects.filter(pk=starting.pk).transition(ContainerState.STARTING, ContainerState.IDLE)
    controller.settle_lost_nodes()
    idle.refresh_from_db()
    assert idle.state == ContainerState.REMOVING
    starting.refresh_from_db()
    assert starting.state == ContainerState.IDLE


def test_it_is_told_once_when_it_is_empty_and_uncordon_ends_it(pool, node):
    container = make_container(pool, state=ContainerState.REMOVING)
    node_changes.drain(node.pk, "new memory")
    controller.settle_lost_nodes()
    assert not Event.objects.filter(type="node.drained").exists()
    container.delete()
    controller.settle_lost_nodes()
    controller.settle_lost_nodes()
    assert Event.objects.filter(type="node.drained").count() == 1
    node.refresh_from_db()
    assert (node.is_cordoned, node.cordon_reason, node.drained_at is not None) == (True, "new memory", True)
    node_changes.uncordon(node.pk)
    node.refresh_from_db()
    assert (node.is_cordoned, node.drains_at, node.drained_at) == (False, None, None)
    assert set(AuditEntry.objects.values_list("action", flat=True)) >= {"node.drain", "node.cordon", "node.uncordon"}


def test_the_same_by_the_api_the_page_and_the_command(pool, node, call, admin_client):
    make_held(pool, "alice")
    assert call("POST", f"nodes/{node.pk}/drain", {"afterMs": 60_000}).json()["drainsAt"]
    node_changes.uncordon(node.pk)
    call_command("nodes", "drain", node.pk, "--deadline", "5")
    assert Node.objects.get(pk=node.pk).is_draining
    node_changes.uncordon(node.pk)
    question = admin_client.get(f"/nodes/{node.pk}/drain").content.decode()
    assert "1 tenant there is released" in question
    admin_client.post(f"/nodes/{node.pk}/drain", {"typed": node.pk, "asked": "drain"})
    assert "Draining" in admin_client.get("/nodes/").content.decode()


def test_a_node_that_is_alive_or_in_use_is_not_removed(pool, node):
    with pytest.raises(node_removals.NodeAlive):
        node_removals.remove(node.pk)
    gone = make_node("gone")
    Node.objects.filter(pk="gone").transition(NodeState.ACTIVE, NodeState.SILENT)
    container = make_container(pool, node="gone")
    with pytest.raises(node_removals.NodeInUse):
        node_removals.remove(gone.pk, force=True)
    host.leases._lease("uid 299999", container.pk, "gone")
    container.delete()
    OrmQ.objects.create(key="pool@gone", payload="x", lock=node.created_at)
    call_command("nodes", "remove", "gone")
    assert not Node.objects.filter(pk="gone").exists()
    assert not HostLease.objects.filter(pk="uid 299999").exists()
    assert not OrmQ.objects.filter(key="pool@gone").exists()


def test_state_that_only_it_has_is_given_up_by_force_alone(pool):
    make_node("gone")
    Node.objects.filter(pk="gone").transition(NodeState.ACTIVE, NodeState.SILENT)
    kept = make_assignment(
        "alice", pool=pool, state=AssignmentState.RELEASE_FAILED, directory_node="gone", was_assigned=True,
        container_ref="01a225be-a402-7d7b-9367-82dde78b698a", step=ReleaseStep.SAVING,
    )  # fmt: skip
    Pool.objects.update(release_failed=1)
    with pytest.raises(node_removals.NodeInUse):
        node_removals.remove("gone")
    node_removals.remove("gone", force=True)
    kept.refresh_from_db()
    pool.refresh_from_db()
    assert (kept.state, kept.outcome, pool.release_failed) == ("ended", "node_lost", 0)
    assert Event.objects.get(type="container.lost").tenant_id == "alice"
