"""Which node a new container gets: the decision as a function, its promises under load, and what a refill makes of it."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django_q.models import OrmQ
from hypothesis import given, settings
from hypothesis import strategies as st

from boilerhouse.attention import causes
from boilerhouse.attention.cause import Kind
from boilerhouse.core import deployment
from boilerhouse.core.deployment import node_id
from boilerhouse.core.models import Event, Node
from boilerhouse.core.querysets import SUSPECT_AFTER
from boilerhouse.core.states import NodeState
from pools import capacity, host, lifecycle, sizing
from pools.capacity import Promised
from pools.models import Container, HostLease, Pool
from pools.placement import Candidate, Need, Reason, Refused, Rules, Strategy, choose, refusal
from pools.states import ContainerState, Trouble
from tests.api_calls import refused_fields
from tests.make import make_container, make_node, make_pool, make_workload

pytestmark = pytest.mark.any_database
NEED = Need(Promised(1, 1.0, 512))
PACK = Rules(Strategy.BINPACK)

# The decision ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "need", "rules", "reason"),
    [
        (Candidate("n"), NEED, Rules(), None),
        (Candidate("n", is_alive=False, is_cordoned=True), NEED, Rules(), Reason.SILENT),
        (Candidate("n", is_cordoned=True), NEED, Rules(), Reason.CORDONED),
        (Candidate("n", labels={"zone": "a"}), NEED, Rules(selector={"zone": "b"}), Reason.LABELS),
        (Candidate("n", labels={"zone": "b", "x": ""}), NEED, Rules(selector={"zone": "b"}), None),
        (Candidate("n", runtimes=frozenset({"runc"})), Need(NEED.promised, "runsc"), Rules(), Reason.RUNTIME),
        (Candidate("n"), Need(NEED.promised, "runsc"), Rules(), None),
        (Candidate("n", has_engine=False), NEED, Rules(), Reason.ENGINE),
        (Candidate("n", has_disk=False), NEED, Rules(), Reason.DISK),
        (Candidate("n", of_pool=2), NEED, Rules(max_per_node=2), Reason.FULL),
        (Candidate("n", memory_mb=1024, overcommit=0.4), NEED, Rules(), Reason.MEMORY),
        (Candidate("n", memory_mb=1024, overcommit=0.5), NEED, Rules(), None),
        (Candidate("n", cpus=4, overcommit=1.0, promised=Promised(3, 3.5, 0)), NEED, Rules(), Reason.CPUS),
        (Candidate("n", memory_mb=16, cpus=1, promised=Promised(9, 9.0, 9999)), NEED, Rules(), None),
    ],
)  # fmt: skip
def test_a_node_is_refused_for_the_first_reason_that_applies(node, need, rules, reason):
    """Without a bound, what is promised orders nodes and refuses none."""
    assert refusal(node, need, rules) == reason


def test_spread_takes_the_emptiest_and_binpack_the_fullest_that_has_room():
    full, half = (
        Candidate(name, cpus=8, memory_mb=8192, overcommit=1.0, promised=Promised(number, 1.0, number * 1024))
        for name, number in (("full", 8), ("half", 4))
    )
    empty = Candidate("empty", cpus=8, memory_mb=8192, overcommit=1.0)
    assert choose([full, half, empty], NEED, Rules()).id == "empty"
    assert choose([full, half, empty], NEED, PACK).id == "half"


def test_a_node_of_which_nothing_is_known_is_the_last_to_be_spread_to():
    known = Candidate("z", cpus=1, memory_mb=1024, promised=Promised(1, 0.5, 512))
    assert choose([Candidate("a"), known], NEED, Rules()).id == "z"


def test_among_equals_the_pools_containers_decide_then_the_own_node():
    assert choose([Candidate("a", of_pool=1), Candidate("b")], NEED, Rules()).id == "b"
    assert choose([Candidate("a"), Candidate("b", is_here=True)], NEED, Rules()).id == "b"


def test_nothing_fits_is_said_with_the_number_of_nodes_for_each_reason():
    nodes = [Candidate("a", is_cordoned=True), Candidate("b", is_cordoned=True), Candidate("c", has_disk=False)]
    refused = choose(nodes, NEED, Rules())
    assert isinstance(refused, Refused)
    assert refused.words() == "No node can take another container: 2 are cordoned, 1 has too little disk."
    assert choose([], NEED, Rules()).words() == "No node can take another container: there is none."


_candidates = st.lists(
    st.builds(
        Candidate, id=st.text("abcdef", min_size=6, max_size=6), is_alive=st.booleans(), is_cordoned=st.booleans(),
        is_here=st.booleans(), has_engine=st.booleans(), has_disk=st.booleans(),
        labels=st.dictionaries(st.sampled_from("xy"), st.sampled_from("12")),
        cpus=st.none() | st.integers(1, 64), memory_mb=st.none() | st.integers(256, 8192),
        overcommit=st.none() | st.floats(0.1, 4), of_pool=st.integers(0, 5),
        promised=st.builds(Promised, st.integers(0, 9), st.floats(0, 64), st.integers(0, 8192)),
    ),
    max_size=8, unique_by=lambda node: node.id,
)  # fmt: skip
_rules = st.builds(
    Rules, st.sampled_from(Strategy), st.dictionaries(st.sampled_from("xy"), st.sampled_from("12"), max_size=1),
    st.none() | st.integers(1, 5),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(_candidates, _rules, st.randoms())
def test_the_choice_is_one_that_fits_whatever_the_order_and_each_other_has_a_reason(nodes, rules, random):
    chosen = choose(nodes, NEED, rules)
    shuffled = [*nodes]
    random.shuffle(shuffled)
    assert choose(shuffled, NEED, rules) == chosen
    fits = [node for node in nodes if refusal(node, NEED, rules) is None]
    if not fits:
        assert isinstance(chosen, Refused)
        assert sum(chosen.counts.values()) == len(nodes)
        return
    assert chosen in fits
    shares = [node.share for node in fits]
    assert chosen.share == (min(shares) if rules.strategy == Strategy.SPREAD else max(shares))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(256, 4096), min_size=1, max_size=6), st.lists(st.integers(16, 1024), max_size=40))
def test_no_bound_is_exceeded_and_nothing_is_refused_that_fits(sizes, needs):
    memory = {f"n{number}": size for number, size in enumerate(sizes)}
    used = dict.fromkeys(memory, 0)
    for memory_mb in needs:
        nodes = [
            Candidate(name, cpus=1, memory_mb=size, overcommit=1.0, promised=Promised(0, 0.0, used[name]))
            for name, size in memory.items()
        ]
        chosen = choose(nodes, Need(Promised(1, 0.0, memory_mb)), Rules())
        if isinstance(chosen, Refused):
            assert all(used[name] + memory_mb > size for name, size in memory.items())
        else:
            used[chosen.id] += memory_mb
    assert all(used[name] <= size for name, size in memory.items())


# What a refill makes of it -----------------------------------------------------------------------------------------


@pytest.fixture
def here(data_dir, settings) -> str:
    settings.BOILERHOUSE_PARALLEL_CREATES = 1000
    deployment.deployment_id()
    return node_id()


def known(*names: str, **over: object) -> None:
    """Nodes with a living worker that has reported."""
    values = {"cpus": 8, "memory_mb": 8192, "disk_free_mb": 1_000_000, "heartbeat_at": timezone.now()}
    for name in names:
        make_node(name)
        Node.objects.filter(pk=name).update(**{**values, **over})


def on_nodes(pool: Pool) -> Counter[str]:
    return Counter(Container.objects.filter(pool=pool).values_list("node_id", flat=True))


def trouble_of(pool: Pool) -> str:
    pool.refresh_from_db()
    return pool.trouble


def test_containers_are_spread_and_each_start_goes_to_its_nodes_queue(here):
    known(here, "two", "three")
    pool = make_pool(min_size=6)
    assert sizing.refill(pool.pk) == 6
    assert on_nodes(pool) == {here: 2, "two": 2, "three": 2}
    sent = Counter(OrmQ.objects.values_list("key", flat=True))
    assert sent == {f"pool@{name}": 2 for name in (here, "two", "three")}
    leases = HostLease.objects.filter(resource__startswith="uid ")
    assert Counter(leases.values_list("node_id", flat=True)) == on_nodes(pool)


def test_a_single_node_that_never_reported_gets_what_it_got_before(here):
    pool = make_pool(min_size=3)
    assert sizing.refill(pool.pk) == 3
    assert on_nodes(pool) == {here: 3}


def test_a_cordoned_node_gets_nothing_new_keeps_what_it_has_and_is_said(here):
    pool = make_pool(min_size=3)
    make_container(pool)
    Node.objects.update(cordoned_at=timezone.now())
    assert sizing.refill(pool.pk) == 0
    assert on_nodes(pool) == {here: 1}
    assert trouble_of(pool) == Trouble.NO_NODE
    assert "1 is cordoned" in pool.last_error
    [cause] = [one for one in causes.present() if one.kind == Kind.POOL_CANNOT_START]
    assert cause.subject == pool.pk
    assert sizing.refill(pool.pk) == 0
    assert Event.objects.filter(type="pool.warning").count() == 1

    Node.objects.update(cordoned_at=None)
    assert sizing.is_off(pool)
    assert sizing.refill(pool.pk) == 2
    assert trouble_of(pool) == ""
    assert Event.objects.filter(type="pool.recovered").count() == 1


def test_a_pool_that_needs_no_more_nodes_recovers(here):
    pool = make_pool(min_size=1)
    Node.objects.update(cordoned_at=timezone.now())
    sizing.refill(pool.pk)
    Pool.objects.update(min_size=0)
    pool.refresh_from_db()
    assert sizing.is_off(pool)
    sizing.refill(pool.pk)
    assert trouble_of(pool) == ""
    assert not sizing.is_off(pool)


def test_a_start_that_succeeds_does_not_end_the_lack_of_a_node(here, fake_engine):
    """Each of several containers that found room would have reported a recovery."""
    pool = make_pool(min_size=2)
    known(here, memory_mb=600, overcommit=1.0)
    assert sizing.refill(pool.pk) == 1
    assert trouble_of(pool) == Trouble.NO_NODE
    assert "1 has too little memory" in pool.last_error
    Container.objects.update(state=ContainerState.IDLE)
    lifecycle._proved(pool, Container.objects.get())
    assert trouble_of(pool) == Trouble.NO_NODE


@pytest.mark.parametrize(
    "lack",
    [
        {"state": NodeState.SILENT}, {"engine_error": "no answer"}, {"disk_free_mb": 1},
        {"heartbeat_at": timezone.now() - SUSPECT_AFTER - timedelta(hours=1)},
    ],
    ids=["silent", "engine", "disk", "suspect"],
)  # fmt: skip
def test_a_node_that_cannot_start_containers_gets_none(here, lack):
    known(here, "other")
    Node.objects.filter(pk="other").update(**lack)
    pool = make_pool(min_size=4)
    sizing.refill(pool.pk)
    assert on_nodes(pool) == {here: 4}


def test_a_full_disk_here_sends_containers_to_another_node(here, monkeypatch):
    monkeypatch.setattr(host, "disk_is_low", lambda: True)
    pool = make_pool(min_size=2)
    assert sizing.refill(pool.pk) == 0
    assert trouble_of(pool) == Trouble.DISK_LOW, "the only node's disk is named as before"
    known(here, "other")
    assert sizing.refill(pool.pk) == 2
    assert on_nodes(pool) == {"other": 2}
    assert trouble_of(pool) == ""


def test_a_pool_chooses_nodes_by_labels_and_bounds_each(here):
    known(here)
    known("gpu-1", "gpu-2", labels={"gpu": "yes"})
    rules = {"strategy": "binpack", "selector": {"gpu": "yes"}, "max_per_node": 2}
    pool = make_pool(min_size=5, placement=rules)
    assert sizing.refill(pool.pk) == 4
    assert on_nodes(pool) == {"gpu-1": 2, "gpu-2": 2}
    assert trouble_of(pool) == Trouble.NO_NODE
    assert "1 has other labels, 2 have maxPerNode containers of the pool" in pool.last_error


def test_other_pools_promises_count(here):
    known("big", memory_mb=8192, overcommit=1.0)
    known(here, memory_mb=1024, overcommit=1.0)
    make_container(make_pool(workload=make_workload(resources={"cpus": 1.0, "memory_mb": 7900})), node="big")
    pool = make_pool(min_size=4)
    sizing.refill(pool.pk)
    assert on_nodes(pool) == {here: 2}


@pytest.mark.django_db(transaction=True)
def test_pools_that_are_filled_at_once_never_promise_the_same_memory(here):
    """Without the lock, decisions that do not see each other fill a node twice."""
    known(here, "two", "three", memory_mb=2048, overcommit=1.0)
    pools = [make_pool(min_size=3) for _ in range(8)]

    def fill(pool: Pool) -> None:
        sizing.refill(pool.pk)
        connection.close()

    threads = [threading.Thread(target=fill, args=[pool]) for pool in pools]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    promised = capacity.promised()
    assert {name: one.memory_mb for name, one in promised.items()} == dict.fromkeys((here, "two", "three"), 2048)


def test_fifty_nodes_cost_no_more_queries_than_two(here):
    def queries(nodes: int) -> int:
        known(here, *(f"n{number:02}" for number in range(nodes - 1)), overcommit=100.0)
        pool = make_pool(min_size=100, max_size=100)
        with CaptureQueriesContext(connection) as asked:
            assert sizing.refill(pool.pk) == 100
        assert set(on_nodes(pool).values()) == {100 // nodes}
        Container.objects.all().delete()
        return len(asked)

    with_two = queries(2)
    assert queries(50) <= with_two


# The API -----------------------------------------------------------------------------------------------------------


def test_the_api_takes_a_placement_and_a_form_keeps_it(call, here, admin_client):
    pool = make_pool()
    path = f"pools/{pool.pk}"
    shown = call("GET", path).json()
    assert shown["placement"] is None
    placement = {"strategy": "binpack", "nodeSelector": {"zone": "a"}, "maxPerNode": 3}
    answer = call("PUT", path, {**shown, "placement": placement})
    assert answer.status_code == 200, answer.content
    assert answer.json()["placement"] == placement
    pool.refresh_from_db()
    assert Rules.from_json(pool.placement) == Rules(Strategy.BINPACK, {"zone": "a"}, 3)
    form = {"name": "other", "minSize": 0, "maxSize": 10, "minIdle": 0, "idleTimeoutMs": 0, "onUnhealthy": "report"}
    form |= {"placement.strategy": "binpack", "placement.nodeSelector": "zone=a", "placement.maxPerNode": 3}
    admin_client.post(f"/pools/{pool.pk}/configure", {**form, "network.egress.mode": "internet"})
    shown = call("GET", path).json()
    assert (shown["name"], shown["placement"]) == ("other", placement)
    assert call("PUT", path, {**shown, "placement": None}).json()["placement"] is None
    assert call("PUT", path, {**shown, "placement": {}}).json()["placement"] == {
        "strategy": "spread", "nodeSelector": {}, "maxPerNode": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("placement", "pointer"),
    [
        ({"strategy": "random"}, "/placement/strategy"), ({"maxPerNode": 0}, "/placement/maxPerNode"),
        ({"nodeSelector": {"-": "x"}}, "/placement/nodeSelector/-"), ({"zone": "a"}, "/placement/zone"),
    ],
)  # fmt: skip
def test_a_placement_that_is_none_is_refused(call, here, placement, pointer):
    body = {"id": "p", "workloadId": make_workload().pk, "placement": placement}
    fields, _ = refused_fields(call("POST", "pools", body))
    assert {where for where, _ in fields} == {pointer}
