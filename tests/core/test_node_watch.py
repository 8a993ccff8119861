"""Each node has one controller that watches it, whichever leads; an engine that is down is its node's trouble."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from types import SimpleNamespace
from uuid import uuid4

import pytest
from django.db.models.functions import Now
from django.utils import timezone

from boilerhouse.attention import causes
from boilerhouse.attention.cause import Kind
from boilerhouse.controller import controller, node_watch, rights
from boilerhouse.controller.engine_watch import EngineWatch
from boilerhouse.controller.node_watch import NodeWatch
from boilerhouse.core import deployment, nodes
from boilerhouse.core.deployment import node_id
from boilerhouse.core.models import Node
from boilerhouse.operations import doctor
from boilerhouse.process import processes
from pools import lifecycle, reconcile, sizing
from pools.errors import EngineUnavailable
from pools.models import Container, Pool
from pools.states import ContainerState, Trouble
from tests.make import make_container, make_node, make_pool

pytestmark = [pytest.mark.any_database, pytest.mark.django_db(transaction=True)]
DOWN = "The container engine does not answer."


@pytest.fixture
def here(data_dir, fake_engine) -> str:
    deployment.deployment_id()
    return node_id()


def another_node(**over: object) -> Node:
    node = make_node("other")
    values = {"reported_at": Now(), "heartbeat_at": Now(), "cpus": 4, "memory_mb": 4096, "disk_free_mb": 100_000}
    Node.objects.filter(pk=node.pk).update(**{**values, **over})
    return node


# Who watches -------------------------------------------------------------------------------------------------------


def test_a_node_has_one_watcher_until_it_ends_or_is_silent(here, monkeypatch):
    first, second = NodeWatch(), NodeWatch()
    me, other = processes.current(), uuid4()
    first.renew()
    assert first.is_held()

    monkeypatch.setattr(processes, "current", lambda: other)
    second.renew()
    assert not second.is_held()
    node_watch.release()
    assert Node.objects.get(pk=here).watcher == me, "nobody releases another's"

    Node.objects.update(watched_until=Now() - timedelta(seconds=1))
    second.renew()
    assert second.is_held()
    assert Node.objects.get(pk=here).watcher == other
    node_watch.release()
    monkeypatch.setattr(processes, "current", lambda: me)
    third = NodeWatch()
    third.renew()
    assert third.is_held()


def test_a_watch_that_is_not_renewed_lapses_here_before_another_may_have_it(here, monkeypatch):
    watch = NodeWatch()
    watch.renew()
    until = Node.objects.get(pk=here).watched_until
    now = time.monotonic()
    late = now + node_watch.TTL.total_seconds()
    monkeypatch.setattr(rights, "time", SimpleNamespace(monotonic=lambda: late))
    assert not watch.is_held()
    watch.renew()
    assert watch.is_held()
    assert Node.objects.get(pk=here).watched_until >= until


def test_a_controller_that_does_not_lead_watches_its_own_node(here, monkeypatch):
    """Only the leader's node was compared with its engine: containers elsewhere died unseen."""
    ran: list[str] = []
    monkeypatch.setattr(controller, "lead", lambda: False)
    monkeypatch.setattr(controller, "STEPS", [(0.0, lambda: ran.append("leader's") or 0)])
    monkeypatch.setattr(controller, "NODE_STEPS", [(0.0, lambda: ran.append("node's") or 0)])
    one = controller.Controller(_stopped())
    one.tick()
    assert not one.is_leading()
    assert ran == ["node's"]
    assert Node.objects.get(pk=here).watcher == processes.current()


def test_a_controller_leads_and_leaves_the_watch_to_another_of_its_node(here, monkeypatch):
    ran: list[str] = []
    monkeypatch.setattr(controller, "STEPS", [(0.0, lambda: ran.append("leader's") or 0)])
    monkeypatch.setattr(controller, "NODE_STEPS", [(0.0, lambda: ran.append("node's") or 0)])
    Node.objects.update(watcher=uuid4(), watched_until=Now() + timedelta(minutes=1))
    one = controller.Controller(_stopped())
    one.tick()
    assert one.is_leading()
    assert ran == ["leader's"]


def _stopped() -> threading.Event:
    """Its threads end at once."""
    stop = threading.Event()
    stop.set()
    return stop


def test_a_living_node_without_a_controller_is_said_by_doctor(here):
    other = another_node()
    assert nodes.unwatched() == [], "nodes that have just started"
    Node.objects.update(created_at=timezone.now() - timedelta(hours=1))
    NodeWatch().renew()
    assert nodes.unwatched() == [other.pk]
    assert any(f"no controller watches the node {other.pk}" in words for _, words, *_ in doctor._processes())


# An engine that is down --------------------------------------------------------------------------------------------


def troubles() -> set[str]:
    return set(Pool.objects.values_list("trouble", flat=True))


def engines() -> list[str]:
    return [cause.subject for cause in causes.present() if cause.kind == Kind.ENGINE_GONE]


def test_an_engine_that_is_down_is_its_nodes_trouble_while_another_serves(here):
    """All pools were in trouble, and claims were refused, for one engine of many."""
    another_node()
    pool = make_pool(min_size=2)
    reconcile.engine_is_down(DOWN)
    assert troubles() == {""}
    assert engines() == [here]
    since = Node.objects.get(pk=here).engine_down_since
    reconcile.engine_is_down("It refused the connection.")
    assert Node.objects.get(pk=here).engine_down_since == since

    reconcile.engine_is_back()
    assert engines() == []
    assert Node.objects.get(pk=here).engine_down_since is None
    assert sizing.refill(pool.pk) == 2


@pytest.mark.parametrize(
    "over",
    [
        {"engine_error": DOWN}, {"state": "silent"}, {"reported_at": None},
        {"heartbeat_at": timezone.now() - timedelta(hours=1)},
    ],
    ids=["down", "silent", "never reported", "suspect"],
)  # fmt: skip
def test_without_another_engine_every_pool_says_so(here, over):
    another_node(**over)
    make_pool()
    reconcile.engine_is_down(DOWN)
    assert troubles() == {Trouble.ENGINE_DOWN}
    reconcile.engine_is_back()
    assert troubles() == {""}


def test_a_watch_whose_engine_answers_ends_the_trouble_that_another_nodes_began(here, fake_engine, monkeypatch):
    """The other's engine is still down; its pools have this node again."""
    another_node(engine_error=DOWN)
    make_pool(trouble=Trouble.ENGINE_DOWN, last_error=DOWN)
    watch = EngineWatch(lambda: True, threading.Event())
    watch._due.set()
    watch._reconcile()
    assert troubles() == {""}


def test_a_start_that_finds_no_engine_leaves_the_pool_to_other_nodes(here, fake_engine):
    """One node's engine set the whole pool's back-off."""
    another_node()
    pool = make_pool(min_size=1)
    container = make_container(pool, state=ContainerState.STARTING, owner=processes.current())
    lifecycle._start_failed(container, EngineUnavailable(DOWN))
    pool.refresh_from_db()
    assert (pool.trouble, pool.failures) == ("", 0)
    assert engines() == [here]
    assert Node.objects.get(pk=here).engine_error == DOWN

    Node.objects.filter(pk="other").update(engine_error=DOWN)
    container = make_container(pool, state=ContainerState.STARTING, owner=processes.current())
    lifecycle._start_failed(container, EngineUnavailable(DOWN))
    pool.refresh_from_db()
    assert (pool.trouble, pool.failures) == (Trouble.ENGINE_DOWN, 1)
    assert Container.objects.filter(state=ContainerState.FAILED).count() == 2
