"""The fence of a node: what its guard does alone, and when the others' word lets it wait."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import OperationalError
from django.db.models.functions import Now

from boilerhouse.core import deployment, node_leases, node_loss
from boilerhouse.core.models import Event, Node
from boilerhouse.operations.supervisor import free_port
from pools.fencing import fence as fencing
from pools.fencing import peers, state
from pools.fencing.fence import GUARD, Fence, boottime, is_most
from tests.make import make_node
from tests.waiting import eventually

SOON_S = 0.4


class Guarded:
    """A guard, and files in place of the kernel's."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.mark = directory, directory / "mark"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-I", "-S", str(GUARD), str(self.mark)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.processes.append(self.process)

    def group(self, name: str, *, is_claimed: bool = True) -> list[str]:
        control = self.directory / name
        control.write_text("THAWED")
        if is_claimed:
            (self.directory / f"{name}.claimed").touch()
        return [str(self.directory / f"{name}.claimed"), str(control), "FROZEN", "THAWED"]

    def tell(self, in_s: float, *groups: list[str]) -> str:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps({"until": boottime() + in_s, "groups": groups}).encode() + b"\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().decode().strip()

    def stands_still(self, name: str) -> bool:
        return (self.directory / name).read_text().startswith("FROZEN")

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def guard(tmp_path):
    guarded = Guarded(tmp_path)
    yield guarded
    guarded.end()


def test_containers_stand_still_when_nobody_says_wait(guard):
    """Only those that a tenant has used: an idle one serves nobody."""
    groups = guard.group("used"), guard.group("idle", is_claimed=False)
    assert guard.tell(SOON_S, *groups) == "free"
    assert not guard.stands_still("used")
    eventually(lambda: guard.stands_still("used"), 5, 0.02)
    assert guard.mark.exists()
    assert not guard.stands_still("idle")
    assert guard.tell(60, *groups) == "free"
    assert not guard.stands_still("used")
    assert not guard.mark.exists()


def test_a_container_that_is_claimed_or_thawed_meanwhile_stands_still_too(guard):
    groups = guard.group("a"), guard.group("late", is_claimed=False)
    assert guard.tell(-1, *groups) == "frozen"
    (guard.directory / "late.claimed").touch()
    (guard.directory / "a").write_text("THAWED")
    eventually(lambda: guard.stands_still("a") and guard.stands_still("late"), 5, 0.02)


def test_the_guard_goes_on_alone_when_its_parent_is_killed(guard):
    guard.tell(SOON_S, guard.group("a"))
    guard.process.stdin.close()
    eventually(lambda: guard.stands_still("a"), 5, 0.02)
    assert guard.process.poll() is None


def test_a_guard_that_was_stopped_freezes_first_of_all(guard):
    """As after the machine was suspended: its time has passed meanwhile."""
    guard.tell(2.0, guard.group("a"))
    os.kill(guard.process.pid, signal.SIGSTOP)
    time.sleep(2.2)
    assert not guard.stands_still("a")
    os.kill(guard.process.pid, signal.SIGCONT)
    eventually(lambda: guard.stands_still("a"), 2, 0.01)


def test_another_guard_thaws_what_the_one_before_froze(guard):
    group = guard.group("a")
    guard.tell(-1, group)
    guard.process.kill()
    guard.process.wait()
    assert guard.stands_still("a"), "a death thaws nothing"
    guard.start()
    time.sleep(0.5)
    assert guard.stands_still("a"), "nor does a guard that was told nothing"
    assert guard.tell(60, group) == "free"
    assert not guard.stands_still("a")
    assert not guard.mark.exists()


def test_a_container_without_a_row_stays_frozen(guard):
    """Its tenant may have another container by now."""
    kept, gone = guard.group("kept"), guard.group("gone")
    assert guard.tell(-1, kept, gone) == "frozen"
    assert guard.tell(60, kept) == "free"
    assert not guard.stands_still("kept")
    assert guard.stands_still("gone")


def test_a_guard_without_a_word_ends_with_its_parent(guard):
    guard.process.stdin.close()
    guard.process.wait(5)


def test_a_container_that_has_ended_keeps_no_other_running(guard):
    gone = guard.group("gone")
    (guard.directory / "gone").unlink()
    assert guard.tell(-1, gone, guard.group("a")) == "frozen"
    assert guard.stands_still("a")
    assert not (guard.directory / "gone").exists()


# The others' word ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", range(1, 8))
def test_who_may_wait_is_never_given_up(count):
    """Of every set of nodes and whatever part of them reaches the database: the node that waits has heard no from most,
    and a controller that gives one up has seen at least half."""
    members = frozenset(map(str, range(count)))
    for reach in itertools.chain.from_iterable(itertools.combinations(members, n) for n in range(count + 1)):
        waits = is_most(set(members - set(reach)), members)
        may_give_up = 2 * len(reach) >= count
        assert not (waits and may_give_up), reach
        assert waits or may_give_up, "one of both always decides"


def test_a_single_node_never_stands_still():
    assert is_most({"a"}, frozenset({"a"}))


@pytest.fixture
def address():
    return f"127.0.0.1:{free_port()}"


def test_a_fence_says_how_long_ago_the_database_answered_it(address, settings):
    answering = peers.Answering(address, "b", lambda: 12.5)
    try:
        assert peers.ask({"b": address, "c": f"127.0.0.1:{free_port()}", "d": ""}, within_s=1) == {"b": 12.5}
        assert peers.ask({"x": address}, within_s=0.3) == {}, "it is not the node that was asked"
    finally:
        answering.close()


def test_nobody_else_can_say_it(address, settings):
    """Another deployment's fence, somebody without the key, and one who repeats an answer."""
    heard = []
    host, port = peers.address_of(address)
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind((host, port))
    answers = iter(
        [
            lambda ask: b"x" * 200,
            lambda ask: b"\0" * 32 + json.dumps({"answer": ask, "node": "b", "age": 99}).encode(),
            lambda ask: peers._packed({"answer": "0" * 32, "node": "b", "age": 99}),
            lambda ask: peers._packed([ask]),
        ]
    )

    def lie():
        for answer in answers:
            packet, sender = listener.recvfrom(1024)
            heard.append(packet)
            listener.sendto(answer(peers._unpacked(packet)["ask"]), sender)

    thread = threading.Thread(target=lie, daemon=True)
    thread.start()
    for _ in range(4):
        assert peers.ask({"b": address}, within_s=0.3) == {}
    thread.join(5)
    listener.close()
    assert len(set(heard)) == 4, "each question is another"


# The fence, with its guard, and the database in the same process --------------------------------------------


class Fenced:
    def __init__(self, guarded: Guarded, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(state, "ROOT", tmp_path / "run")
        monkeypatch.setattr(fencing, "FREEZE_S", 1.0)
        monkeypatch.setattr(fencing, "ASK_S", 0.5)
        monkeypatch.setattr(fencing, "_groups", lambda: [guarded.group("a")] if not self.made else self.made)
        self.made: list[list[str]] = []
        self.files = guarded
        state.prepare()
        deployment.register_node()
        self.fence = Fence("")

    def renew(self) -> None:
        self.fence.look()  # as another thread does all the time: without a guard that answers, no lease is renewed
        self.fence.renew()
        self.made = self.fence._groups

    def stands_still_after(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.fence.look()
        return self.files.stands_still("a")

    def stops(self) -> None:
        """Its containers stand still soon."""
        until = time.monotonic() + 10
        while not self.stands_still_after(0):
            assert time.monotonic() < until
            self.fence.look()

    def goes_on(self, *, is_leased: bool = True) -> None:
        """Its containers run soon; a lease of a second is renewed meanwhile."""
        until = time.monotonic() + 10
        while self.stands_still_after(0):
            assert time.monotonic() < until
            if is_leased:
                self.renew()
            else:
                self.fence.look()


@pytest.fixture
def fenced(guard, monkeypatch, tmp_path, data_dir):
    made = Fenced(guard, monkeypatch, tmp_path)
    yield made
    made.fence._guard.end()


def alone_no_more(fenced: Fenced) -> None:
    """There is another node with a lease, whose fence cannot be asked."""
    make_node("other")
    assert node_leases.renew("other", 0, "", [])
    fenced.fence._listed_at = float("-inf")
    fenced.renew()


def test_a_fence_that_cannot_renew_stops_the_containers_and_starts_them_again(fenced):
    alone_no_more(fenced)
    assert not fenced.stands_still_after(0.1)
    fenced.stops()
    fenced.renew()
    fenced.goes_on()
    fenced.renew()
    fenced.renew()
    assert Event.objects.get(type="node.thawed").payload["node"] == deployment.node_id()


def test_the_only_node_goes_on_without_its_database(fenced):
    fenced.renew()
    assert not fenced.stands_still_after(2.5)


def test_a_node_that_was_given_up_stops_at_once_and_takes_a_lease_of_its_new_epoch(fenced):
    fenced.renew()
    me = deployment.node_id()
    Node.objects.filter(pk=me).update(heartbeat_at=Now() - timedelta(minutes=1))
    node_loss.declare(me, is_off=True)
    fenced.renew()
    fenced.stops()
    fenced.renew()
    fenced.stops()  # it waits until it is clean
    node_loss.end(me)
    fenced.renew()
    fenced.goes_on()
    assert (Node.objects.get(pk=me).epoch, fenced.fence._epoch) == (1, 1)


def test_a_node_that_was_given_up_and_removed_thaws_nothing_when_it_registers_again(fenced, monkeypatch):
    """Its new row had the old one's first epoch, so the fence took a lease and thawed what tenants had elsewhere."""
    alone_no_more(fenced)
    fenced.stops()
    Node.objects.filter(pk=deployment.node_id()).delete()
    deployment.register_node()
    monkeypatch.setattr(fencing, "_groups", list)
    fenced.fence.renew()
    assert Node.objects.get(pk=deployment.node_id()).leased_at
    assert fenced.stands_still_after(2)


def test_a_lease_with_an_unknown_outcome_has_the_word_of_both_lists(fenced, monkeypatch):
    """The database may have the new list or the old one; a controller goes by that."""
    alone_no_more(fenced)
    make_node("third")
    assert node_leases.renew("third", 0, "", [])
    fenced.fence._listed_at = float("-inf")

    def lose_the_answer(*_: object) -> bool:
        raise OperationalError

    monkeypatch.setattr(node_leases, "renew", lose_the_answer)
    with pytest.raises(OperationalError):
        fenced.fence.renew()
    assert fenced.fence._counted == [frozenset({"other"}), frozenset({"other", "third"})]
    monkeypatch.setattr(fencing.peers_words, "ask", lambda peers: {"third": 60.0})
    fenced.stops()  # of the first list, only this node says no
    monkeypatch.setattr(fencing.peers_words, "ask", lambda peers: {"third": 60.0, "other": 60.0})
    fenced.goes_on(is_leased=False)


def test_a_guard_that_hangs_is_replaced_and_no_lease_is_renewed_meanwhile(fenced, monkeypatch):
    monkeypatch.setattr(fencing, "ANSWERS_WITHIN_S", 0.8)
    fenced.renew()
    first = fenced.fence._guard.pid
    os.kill(first, signal.SIGSTOP)
    time.sleep(1)
    leased_at = Node.objects.get().leased_at
    fenced.fence.renew()
    assert Node.objects.get().leased_at == leased_at
    eventually(lambda: fenced.fence.look() or fenced.fence._guard.pid != first, 10, 0)
    fenced.renew()
    assert Node.objects.get().leased_at > leased_at


def test_an_orderly_end_gives_the_lease_back(fenced):
    fenced.renew()
    fenced.fence._leave()
    node = Node.objects.get()
    assert (node.leased_at, node.leased_since, state.load()) == (None, None, None)
    assert not fenced.files.stands_still("a")


def test_an_end_that_the_database_does_not_confirm_leaves_the_containers_frozen(fenced, monkeypatch):
    """Whoever ends the guard too, such as systemd with its unit; the next fence thaws them with its lease."""
    fenced.renew()

    def fail(*_: object) -> None:
        raise OperationalError

    with monkeypatch.context() as outage:
        outage.setattr(node_leases, "give_back", fail)
        fenced.fence._leave()
    fenced.fence._guard.end()
    assert fenced.files.stands_still("a")
    fenced.fence = Fence("")
    assert state.is_frozen()
    fenced.renew()
    fenced.goes_on()


def test_an_end_after_the_node_was_given_up_leaves_the_containers_frozen(fenced):
    """The fence has not heard of it yet. Nothing was given back, and the mark that forbids to thaw them was removed."""
    fenced.renew()
    me = deployment.node_id()
    Node.objects.filter(pk=me).update(heartbeat_at=Now() - timedelta(minutes=1))
    node_loss.declare(me, is_off=True)
    fenced.fence._leave()
    assert fenced.files.stands_still("a")
    assert state.is_frozen()


def test_the_next_fence_goes_by_what_the_one_before_knew(fenced):
    """It was killed, and the database does not answer the next one: the time has not begun anew."""
    alone_no_more(fenced)
    fenced.fence._guard.end()
    time.sleep(1.2)
    fenced.fence = Fence("")
    fenced.stops()


def test_thousands_of_containers_are_told_of_in_pieces(fenced, monkeypatch):
    """A pipe holds less than their names; and they are told of once, not with each look."""
    many = [[f"/run/{'x' * 80}/{n}", f"/sys/{'y' * 80}/{n}", "FROZEN", "THAWED"] for n in range(3000)]
    monkeypatch.setattr(fencing, "_groups", lambda: [*many, fenced.files.group("a")])
    alone_no_more(fenced)
    assert not fenced.stands_still_after(0.1)
    fenced.stops()


def test_the_fence_and_its_guard_rest_between_two_looks(fenced, monkeypatch):
    """Each answer was at once followed by the next line, and both kept a processor busy."""
    fenced.renew()
    looks = 0
    until = time.monotonic() + 2
    while time.monotonic() < until:
        fenced.fence.look()
        looks += 1
    assert looks <= 2 / fencing.LOOK_S + 1
