"""Whose idle container a claim gets: this node's first, and none of a node that may be gone."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from boilerhouse.core.deployment import node_id
from boilerhouse.core.models import Node
from boilerhouse.core.querysets import SUSPECT_AFTER
from boilerhouse.core.states import NodeState
from pools.models import Container, Pool
from pools.states import ContainerHealth, ContainerState
from tests.make import make_container, make_node, make_pool

pytestmark = pytest.mark.any_database
LONG_AGO = timezone.now() - timedelta(hours=1)


@pytest.fixture
def pool(data_dir) -> Pool:
    return make_pool()


def takes(pool: Pool) -> list[str]:
    """The nodes of what is taken until nothing is left."""
    found = []
    while (container := Container.objects.take(pool)) is not None:
        assert Container.objects.get(pk=container.pk).state == ContainerState.CLAIMED
        found.append(container.node_id)
    return found


def test_this_nodes_container_is_taken_first_even_if_anothers_has_been_idle_for_longer(pool):
    make_container(pool, node="there", state_changed_at=LONG_AGO)
    make_container(pool)
    assert takes(pool) == [node_id(), "there"]


def test_of_each_node_the_longest_idle_is_taken_first(pool):
    ids = {
        (node, age): make_container(pool, node=node, state_changed_at=LONG_AGO - timedelta(minutes=age)).pk
        for node in (None, "there")
        for age in (1, 3, 2)
    }
    order = [ids[node, age] for node in (None, "there") for age in (3, 2, 1)]
    assert [Container.objects.take(pool).pk for _ in order] == order


@pytest.mark.parametrize(
    "over", [{"state": NodeState.SILENT}, {"heartbeat_at": Now() - SUSPECT_AFTER - timedelta(seconds=1)}]
)
def test_nothing_is_taken_of_a_node_that_may_be_gone(pool, over):
    """Its worker could not finish the claim, which failed at its deadline."""
    make_container(pool, node="gone")
    Node.objects.filter(pk="gone").update(**over)
    assert takes(pool) == []
    Node.objects.filter(pk="gone").update(state=NodeState.ACTIVE, heartbeat_at=Now())
    assert takes(pool) == ["gone"]


def test_this_node_is_not_asked_for_its_heartbeat(pool):
    """A claim that restores nothing needs no worker."""
    make_container(pool)
    Node.objects.update(heartbeat_at=LONG_AGO, state=NodeState.SILENT)
    assert takes(pool) == [node_id()]


def test_a_cordoned_nodes_idle_containers_are_used_and_unhealthy_ones_are_not(pool):
    make_node("there")
    Node.objects.update(cordoned_at=timezone.now())
    make_container(pool, node="there")
    make_container(pool, health=ContainerHealth.UNHEALTHY)
    make_container(pool, node="there", health=ContainerHealth.UNHEALTHY)
    assert takes(pool) == ["there"]


def test_a_claim_on_its_own_node_takes_with_one_statement(pool):
    make_container(pool)
    with CaptureQueriesContext(connection) as asked:
        assert Container.objects.take(pool) is not None
    assert len(asked) == 1
