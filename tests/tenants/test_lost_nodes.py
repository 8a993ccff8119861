"""A node that was declared lost: its tenants go on elsewhere with what they saved, and it returns with clean hands."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db.models.functions import Now
from django_q.models import OrmQ

import tenants.tasks
from boilerhouse.attention import causes
from boilerhouse.controller import controller
from boilerhouse.core import node_loss, nodes
from boilerhouse.core.deployment import node_id
from boilerhouse.core.models import AuditEntry, Event, Node
from boilerhouse.core.states import NodeState
from boilerhouse.queues.tasks import enqueue
from pools import host, lifecycle, volumes
from pools.errors import EngineFailure
from pools.models import Container, HostLease, Tombstone
from pools.placement_round import PlacementRound
from pools.runtime.base import Image
from pools.states import ContainerState
from tenants import node_losses, node_returns, preparation, releases, upkeep
from tenants.models import Assignment, Tenant
from tenants.states import AssignmentState, ReleaseStep
from tests.api_calls import problem
from tests.make import make_assignment, make_container, make_node, make_pool, make_spec

pytestmark = [pytest.mark.any_database, pytest.mark.django_db(transaction=True)]
PENDING, ASSIGNED, RELEASING = AssignmentState.PENDING, AssignmentState.ASSIGNED, AssignmentState.RELEASING


@pytest.fixture(autouse=True)
def _from_the_start():
    node_losses._sent.clear()
    upkeep.orphans.tried.clear()


@pytest.fixture
def pool(data_dir, fake_engine):
    return make_pool()


@pytest.fixture
def there(pool):
    """Another node, silent for a while."""
    node = make_node("there")
    Node.objects.filter(pk=node.pk).update(heartbeat_at=Now() - nodes.SILENT_AFTER - timedelta(seconds=5))
    return node


def held_there(pool, tenant, state, **over):
    was_assigned = over.pop("was_assigned", state != PENDING)
    container = make_container(pool, node="there", state=ContainerState.CLAIMED)
    host.leases._lease(f"uid {container.uid}", container.pk, "there")
    return make_assignment(tenant, container=container, state=state, was_assigned=was_assigned, **over)


def lose(node="there", **over):
    node_loss.declare(node, **{"is_off": True, **over})


def test_tenants_of_a_lost_node_can_claim_elsewhere(pool, there, call):
    """Those that used a container have lost what was not saved; the state of their claim says so."""
    held = held_there(pool, "alice", ASSIGNED)
    make_container(pool, node="there", state=ContainerState.IDLE)
    make_container(pool)
    lose(reason="burnt")
    assert controller.settle_lost_nodes() == 2
    held.refresh_from_db()
    assert (held.state, held.outcome, held.reason, held.container) == ("ended", "node_lost", "node_lost", None)
    assert held.directory_node == "there"
    event = Event.objects.get(type="container.lost")
    assert (event.tenant_id, event.payload["node"]) == ("alice", "there")
    assert Container.objects.filter(node="there").count() == 0
    assert Tombstone.objects.get(pk=held.container_ref).tenant_id == "alice"
    assert HostLease.objects.filter(container_id=held.container_ref).exists(), "its files there have the uid"
    assert call("POST", "tenants/alice/claim", {"poolId": pool.pk, "wait": False}).status_code in (201, 202)
    again = Assignment.objects.live().get(tenant_id="alice")
    assert again.container.node_id == node_id()
    assert again.generation > held.generation


def test_it_is_recorded_who_declared_it_and_shown_where_people_look(pool, there, call, admin_client):
    assert call("POST", "nodes/there/lost", {"isOff": True, "reason": "burnt"}).status_code == 200
    lose()  # again: nothing changes
    node = Node.objects.get(pk="there")
    assert (node.state, node.epoch, node.lost_reason) == (NodeState.LOST, 1, "burnt")
    assert node.lost_by.startswith("key")
    assert AuditEntry.objects.get(action="node.lost").object_id == "there"
    assert Event.objects.filter(type="node.lost").count() == 1
    [cause] = [one for one in causes.present() if one.subject == "there"]
    assert (cause.title, "burnt" in cause.why) == ("Node there is lost", True)
    assert nodes.silent() == {}
    assert "Lost" in admin_client.get("/nodes/?state=lost").content.decode()


@pytest.mark.parametrize(("is_off", "silent_s", "code"), [(True, 3, "node_alive"), (False, 30, "node_may_run")])
def test_a_node_whose_containers_may_run_is_not_given_up(pool, there, call, is_off, silent_s, code):
    """Two containers of one tenant would run (P1)."""
    Node.objects.filter(pk="there").update(heartbeat_at=Now() - timedelta(seconds=silent_s))
    held = held_there(pool, "alice", ASSIGNED)
    answer = call("POST", "nodes/there/lost", {"isOff": is_off})
    assert problem(answer, 409)["code"] == code
    controller.settle_lost_nodes()
    held.refresh_from_db()
    assert (held.state, Node.objects.get(pk="there").epoch) == (ASSIGNED, 0)


def test_a_heartbeat_at_the_last_moment_keeps_the_node(pool, there, monkeypatch):
    """The row was read as silent; the worker beats before it is written."""
    write = node_loss._write

    def beat_first(node, reason, condition):
        Node.objects.filter(pk=node.pk).update(heartbeat_at=Now())
        return write(node, reason, condition)

    monkeypatch.setattr(node_loss, "_write", beat_first)
    with pytest.raises(node_loss.NodeAlive):
        lose()
    assert Node.objects.get(pk="there").state == NodeState.SILENT


def test_a_claim_that_was_prepared_there_gets_another_container(pool, there, run_tasks):
    """What the lost node decides about it later is void: it carries the generation that it took up."""
    held = held_there(pool, "alice", PENDING, secrets={"token": "x"})
    late = preparation.Assignment.objects.select_related("container__pool", "version").get(pk=held.pk)
    make_container(pool)
    lose()
    controller.settle_lost_nodes()
    held.refresh_from_db()
    assert (held.state, held.container_ref, held.secrets) == (PENDING, None, {"token": "x"})
    assert held.generation == late.generation + 1 == Tenant.objects.get().generation
    assert not preparation._decide(late, [], None, None, None)
    assert pool.__class__.objects.get().waiting == 1
    upkeep.serve_waiters()
    held.refresh_from_db()
    assert held.container.node_id == node_id()
    assert not preparation._decide(late, [], None, None, None)


@pytest.mark.parametrize(
    ("step", "over", "outcome"),
    [
        (ReleaseStep.SAVING, {}, "node_lost"), (ReleaseStep.STOPPING, {}, "node_lost"),
        (ReleaseStep.WIPING, {}, "released"), (ReleaseStep.SAVED, {}, "released"),
        (ReleaseStep.SAVING, {"discard": True}, "discarded"),
        (ReleaseStep.STOPPING, {"was_assigned": False, "outcome": "claim_timeout"}, "claim_timeout"),
    ],
)  # fmt: skip
def test_a_release_there_ends_as_what_is_saved_says(pool, there, step, over, outcome):
    held = held_there(pool, "alice", RELEASING, step=step, **over)
    Container.objects.update(state=ContainerState.REMOVING)
    lose()
    controller.settle_lost_nodes()
    held.refresh_from_db()
    assert (held.state, held.outcome, held.step) == ("ended", outcome, "")
    assert not Container.objects.exists()


def test_a_failed_save_waits_for_its_node_and_can_be_discarded(pool, there):
    """Its newest state is there alone: a claim would lose it without anybody's word."""
    failed = make_assignment(
        "alice", pool=pool, state=AssignmentState.RELEASE_FAILED, directory_node="there", was_assigned=True,
        container_ref=make_container(pool, node="there").pk, next_attempt_at=Now(), step=ReleaseStep.SAVING,
    )  # fmt: skip
    Container.objects.all().delete()
    lose()
    assert upkeep.retry_failed_saves() == 0
    releases.begin("alice")
    controller.settle_lost_nodes()
    failed.refresh_from_db()
    assert (failed.state, failed.outcome) == ("release_failed", "node_lost")
    assert "lost" in failed.whereabouts
    releases.begin("alice", discard=True)
    controller.settle_lost_nodes()
    failed.refresh_from_db()
    assert (failed.state, failed.outcome) == ("ended", "discarded")


def test_a_leader_that_dies_in_the_middle_is_carried_on(pool, there, monkeypatch):
    for tenant in ("ann", "ben", "cyd"):
        held_there(pool, tenant, ASSIGNED)
    lose()
    forget, calls = lifecycle.forget_lost, []

    def die_at_the_second(container, tenant_id):
        calls.append(container.pk)
        if len(calls) == 2:
            raise KeyboardInterrupt
        forget(container, tenant_id)

    monkeypatch.setattr(lifecycle, "forget_lost", die_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        controller.settle_lost_nodes()
    states = list(Assignment.objects.values_list("state", flat=True))
    assert sorted(states) == [ASSIGNED, ASSIGNED, "ended"]
    monkeypatch.undo()
    controller.settle_lost_nodes()
    assert set(Assignment.objects.values_list("state", flat=True)) == {"ended"}
    assert Event.objects.filter(type="container.lost").count() == 3


def test_nothing_is_placed_on_a_lost_node_even_by_its_own_processes(pool):
    make_node()
    Node.objects.update(state=NodeState.SILENT, heartbeat_at=Now() - timedelta(minutes=1))
    lose(node_id())
    Node.objects.update(heartbeat_at=Now())
    nodes.watch()
    assert not isinstance(PlacementRound(pool, []).place(pool.workload.latest), str)
    assert nodes.active() == []


class Returned:
    """This machine as a lost node whose worker runs again."""

    def __init__(self, pool, engine):
        self.pool, self.engine = pool, engine

    def stand(self, tenant=""):
        container = make_container(self.pool, state=ContainerState.CLAIMED if tenant else ContainerState.IDLE)
        volumes.prepare(container.pk, container.uid, make_spec())
        host.leases._lease(f"uid {container.uid}", container.pk)
        host.leases._lease(f"10.0.0.{container.uid % 250}", container.pk)
        if tenant:
            volumes.latch(container.pk, tenant, 1)
        self.engine.create(lifecycle.plan_of(container, container.version.spec, "net", Image("sha256:1")))
        self.engine.start(lifecycle.runtime_name(container.pk))
        return container

    def lose(self):
        Node.objects.update(heartbeat_at=Now() - timedelta(minutes=1))
        lose(node_id())

    def come_back(self):
        Node.objects.update(heartbeat_at=Now())
        nodes.watch()


@pytest.fixture
def returned(pool, fake_engine):
    return Returned(pool, fake_engine)


def test_a_node_that_comes_back_removes_its_containers_and_keeps_what_tenants_wrote(returned, run_tasks):
    unused, used = returned.stand(), returned.stand("alice")
    (volumes.volume_path(used.pk, "state") / "work").write_text("unsaved")
    held = make_assignment("alice", container=used, state=ASSIGNED, was_assigned=True)
    enqueue("pool", "pools.tasks.destroy_container", unused.pk, node=node_id())
    returned.lose()
    assert not OrmQ.objects.filter(key=f"pool@{node_id()}").exists(), "messages of the epoch before"
    returned.come_back()
    assert Node.objects.get().state == NodeState.LOST, "it is not let in before it has cleaned up"
    assert not node_returns.clean(1), "rows are left"
    assert set(returned.engine.containers) != set()
    controller.settle_lost_nodes()
    controller.settle_lost_nodes()
    run_tasks()
    assert returned.engine.containers == {}
    assert (volumes.volume_path(used.pk, "state") / "work").read_text() == "unsaved"
    assert not volumes.home(unused.pk).exists()
    uids = {f"uid {unused.uid}": False, f"uid {used.uid}": True}
    assert {uid: HostLease.objects.filter(pk=uid).exists() for uid in uids} == uids
    assert not HostLease.objects.exclude(resource__startswith="uid").filter(released_at=None).exists()
    node = Node.objects.get()
    assert (node.state, node.epoch) == (NodeState.ACTIVE, 1)
    assert Event.objects.get(type="node.returned").payload["kept"] == 1
    held.refresh_from_db()
    assert held.outcome == "node_lost"


def test_a_failed_save_of_it_is_retried_when_it_is_back(returned):
    used = returned.stand("alice")
    failed = make_assignment(
        "alice", container=used, state=AssignmentState.RELEASE_FAILED, was_assigned=True, directory_node=node_id()
    )
    Assignment.objects.update(container=None)
    returned.lose()
    returned.come_back()
    controller.settle_lost_nodes()
    assert node_returns.clean(1)
    assert volumes.read_latch(used.pk) is not None
    assert HostLease.objects.filter(container_id=used.pk, resource__startswith="uid").exists()
    assert failed.pk in set(Assignment.objects.filter(state="release_failed").values_list("pk", flat=True))


def test_it_stays_lost_while_a_container_cannot_be_removed(returned, monkeypatch):
    returned.stand("alice")
    returned.lose()
    returned.come_back()
    controller.settle_lost_nodes()

    def refuse(_name):
        raise EngineFailure("device or resource busy")

    monkeypatch.setattr(returned.engine, "remove", refuse)
    with pytest.raises(EngineFailure):
        node_returns.clean(1)
    assert Node.objects.get().state == NodeState.LOST
    monkeypatch.undo()
    assert node_returns.clean(1)


def test_a_late_message_of_an_earlier_loss_changes_nothing(returned):
    returned.lose()
    returned.come_back()
    assert node_returns.clean(1)
    kept = returned.stand("bob")
    tenants.tasks.clean_returned_node(node_id(), "1")
    assert lifecycle.runtime_name(kept.pk) in returned.engine.containers
    returned.lose()
    controller.settle_lost_nodes()
    assert not node_returns.clean(1), "the second loss has an epoch of its own"
    assert node_returns.clean(2)


def test_a_claim_that_waits_elsewhere_is_not_disturbed(pool, there):
    waiting = make_assignment("bob", pool=pool)
    lose()
    controller.settle_lost_nodes()
    waiting.refresh_from_db()
    assert (waiting.state, waiting.generation) == (PENDING, 1)
