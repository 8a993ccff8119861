"""Leases of nodes: who is given up by whom, and who never is."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.db.models import F
from django.db.models.functions import Now

from boilerhouse.attention import causes
from boilerhouse.core import deployment, node_leases, node_loss, nodes
from boilerhouse.core.models import Event, Node
from boilerhouse.core.node_leases import BLIND_S, LEASE_S, STEADY_S, Expiry
from boilerhouse.core.states import NodeState
from tests.make import make_node

pytestmark = pytest.mark.any_database


class Clock:
    """The controller's monotonic clock, and the database's rows as old as they would be."""

    def __init__(self, monkeypatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(node_leases, "time", SimpleNamespace(monotonic=lambda: self.now))

    def pass_by(self, expiry: Expiry, seconds: float, *renewing: str, beating: tuple[str, ...] = ()) -> int:
        """Look each second while only these nodes renew their leases, and these have a worker. Returns how many nodes
        were given up."""
        given_up = 0
        for _ in range(int(seconds)):
            self.now += 1
            second = timedelta(seconds=1)
            Node.objects.update(leased_at=F("leased_at") - second, heartbeat_at=F("heartbeat_at") - second)
            Node.objects.filter(pk__in=[*renewing, *beating]).update(heartbeat_at=Now())
            for pk in renewing:
                node = Node.objects.get(pk=pk)
                node_leases.renew(pk, node.epoch, "", node.fence_peers)
            nodes.watch()
            given_up += expiry.look()
        return given_up


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture
def expiry(db):
    return Expiry()


def fenced(*names: str) -> None:
    for name in names:
        make_node(name)
        assert node_leases.renew(name, 0, "", [one for one in names if one != name])


def states() -> dict[str, str]:
    return dict(Node.objects.exclude(leased_since=None).values_list("pk", "state"))


def test_a_node_is_given_up_when_its_lease_is_over(data_dir, clock, expiry):
    fenced("a", "b", "c")
    clock.pass_by(expiry, 5, "a", "b", "c")
    assert clock.pass_by(expiry, LEASE_S - 1, "a", "b") == 0
    assert states()["c"] == NodeState.SILENT
    assert clock.pass_by(expiry, 3, "a", "b") == 1
    assert states() == {"a": NodeState.ACTIVE, "b": NodeState.ACTIVE, "c": NodeState.LOST}
    assert not node_leases.renew("c", 0, "", []), "its fence learns of it, and freezes"
    assert node_leases.epoch_of("c") is None
    assert Event.objects.get(type="node.lost").payload["node"] == "c"


def test_of_two_nodes_one_can_give_up_the_other(data_dir, clock, expiry):
    fenced("a", "b")
    assert clock.pass_by(expiry, LEASE_S + 3, "a") == 1


def test_the_only_node_is_never_given_up(data_dir, clock, expiry):
    fenced("a")
    assert clock.pass_by(expiry, 3 * LEASE_S) == 0


def test_an_outage_of_the_database_gives_nobody_up(data_dir, clock, expiry):
    """Afterwards all leases are over. Those that come back first have the others wait until it is known who stays
    away."""
    fenced("a", "b", "c")
    clock.pass_by(expiry, 5, "a", "b", "c")
    Node.objects.update(leased_at=F("leased_at") - timedelta(minutes=1), heartbeat_at=Now() - timedelta(minutes=1))
    clock.now += 60
    assert clock.pass_by(expiry, STEADY_S - 2, "a", "b") == 0
    assert clock.pass_by(expiry, 5, "a", "b", "c") == 0
    assert set(states().values()) == {NodeState.ACTIVE}
    assert clock.pass_by(expiry, LEASE_S + 2, "a", "b") == 1, "and a node that stays away is given up"


def test_the_smaller_part_gives_nobody_up(data_dir, clock, expiry):
    """The larger part may have heard no from one another and run on."""
    fenced("a", "b", "c")
    assert clock.pass_by(expiry, 3 * LEASE_S, "a") == 0


def test_nodes_that_joined_later_do_not_make_it_the_larger_part(data_dir, clock, expiry):
    """The node counts by the list that it had at its last renewal."""
    fenced("a", "b", "c")
    for late in ("x", "y", "z"):
        make_node(late)
        node_leases.renew(late, 0, "", ["a"])
    assert clock.pass_by(expiry, 3 * LEASE_S, "a", "x", "y", "z") == 0


def test_losing_one_does_not_make_the_rest_a_larger_part(data_dir, clock, expiry):
    fenced("a", "b", "c", "d", "e")
    assert clock.pass_by(expiry, LEASE_S + 3, "a", "b", "c") == 2
    assert clock.pass_by(expiry, 3 * LEASE_S, "a") == 0


def test_a_node_whose_fence_died_before_its_worker_is_left_to_an_operator(data_dir, clock, expiry):
    """Nothing would stop its containers."""
    fenced("a", "b")
    clock.pass_by(expiry, 20, "a", beating=("b",))
    assert clock.pass_by(expiry, 3 * LEASE_S, "a") == 0
    assert states()["b"] == NodeState.SILENT


def test_a_living_worker_without_a_fence_is_shown(data_dir, clock, expiry):
    fenced("a", "b")
    clock.pass_by(expiry, LEASE_S + 2, "a", beating=("b",))
    assert [one.title for one in causes.present() if one.subject == "b"] == ["Node b has no fence any more"]
    assert states()["b"] == NodeState.ACTIVE


def test_a_node_without_a_fence_is_left_to_an_operator(data_dir, clock, expiry):
    fenced("a", "b")
    node_leases.give_back("b", 0)
    assert clock.pass_by(expiry, 3 * LEASE_S, "a") == 0


def test_a_controller_that_was_blind_has_seen_nothing(data_dir, clock, expiry):
    """It hung, or did not lead: what it saw before does not count."""
    fenced("a", "b")
    clock.pass_by(expiry, LEASE_S - 2, "a")
    clock.now += BLIND_S + 1
    assert clock.pass_by(expiry, STEADY_S - 2, "a") == 0
    assert clock.pass_by(expiry, 4, "a") == 1


def test_a_lease_that_is_renewed_at_the_last_moment_counts(data_dir, clock, expiry, monkeypatch):
    fenced("a", "b")
    declare = node_loss.declare_expired

    def renew_first(node_id, is_over):
        node_leases.renew(node_id, 0, "", ["a"])
        return declare(node_id, is_over)

    monkeypatch.setattr(node_loss, "declare_expired", renew_first)
    assert clock.pass_by(expiry, LEASE_S + 3, "a") == 0
    assert states()["b"] != NodeState.LOST


def test_two_controllers_at_once_give_it_up_once(data_dir, clock, expiry, monkeypatch):
    fenced("a", "b")
    declare = node_loss.declare_expired
    monkeypatch.setattr(node_loss, "declare_expired", lambda *both: declare(*both) + declare(*both))
    assert clock.pass_by(expiry, LEASE_S + 3, "a") == 1
    assert Node.objects.get(pk="b").epoch == 1


def test_after_its_return_it_takes_a_lease_of_the_new_epoch(data_dir, clock, expiry):
    fenced("a", "b")
    clock.pass_by(expiry, LEASE_S + 3, "a")
    assert node_loss.end("b")
    assert not node_leases.renew("b", 0, "", ["a"]), "the fence of the epoch before"
    assert node_leases.renew("b", node_leases.epoch_of("b"), "", ["a"])
    assert set(node_leases.peers_of("a")) == {"b"}


def test_without_a_fence_one_query_asks_whether_there_is_any(data_dir, expiry, django_assert_max_num_queries):
    make_node(deployment.node_id())
    expiry.look()
    with django_assert_max_num_queries(1):
        assert expiry.look() == 0
