"""Two nodes on one database: neither changes the other's objects, and a worker passes tasks to the right node.

Both are this process, in turn: each has a data directory with a node id of its own, and an engine of its own. Rows,
messages and files are real.
"""

from __future__ import annotations

import ast
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.http import Http404
from django.test import RequestFactory
from django.utils import timezone
from django_q.models import OrmQ

import pools.tasks
import tenants.tasks
from boilerhouse.controller import controller
from boilerhouse.core import context, deployment, encryption
from boilerhouse.core import nodes as node_rows
from boilerhouse.core.deployment import node_id
from boilerhouse.core.models import Event, Node
from boilerhouse.queues.broker import Broker
from boilerhouse.queues.tasks import enqueue
from boilerhouse.web import node_calls
from pools import firewall, freezer, host, lifecycle, nodes, reconcile, sizing, usage, volumes
from pools.errors import OtherNode
from pools.models import Container, ContainerUsage, HostLease, Pool, PoolUsage
from pools.runtime.base import Image
from pools.states import ContainerState
from syncing.models import SyncRun
from syncing.states import Direction
from tenants import (
    activity,
    claims,
    commands,
    disks,
    preparation,
    previews,
    releases,
    removals,
    state_erasure,
    syncs,
    upkeep,
)
from tenants.api import claim_commands, order_views
from tenants.models import Assignment
from tenants.states import AssignmentState, ReleaseStep
from tests.api_calls import Call, problem
from tests.conftest import unmount_below
from tests.fake_runtime import FakeRuntime
from tests.make import make_assignment, make_container, make_pool, make_spec, make_sync_spec
from tests.runtimes import choose_runtime

pytestmark = [pytest.mark.any_database, pytest.mark.django_db(transaction=True)]
LONG_AGO = timedelta(hours=1)


class Elsewhere(FakeRuntime):
    """An empty engine; code that queries it for a container takes another node's for this one's."""

    def __init__(self, base_url: str) -> None:
        super().__init__(base_url)
        self.asked_for: list[str] = []

    def find(self, name: str) -> None:
        self.asked_for.append(name)


@dataclass
class Nodes:
    """``home`` has all containers, ``away`` none."""

    settings: Any
    home_dir: Path
    away_dir: Path
    home: FakeRuntime
    away: Elsewhere
    setting_of: dict[Path, dict[str, Any]]

    def go_home(self) -> None:
        self._be_at(self.home_dir)

    def go_away(self) -> None:
        self._be_at(self.away_dir)

    def _be_at(self, directory: Path) -> None:
        self.settings.BOILERHOUSE_DATA_DIR = directory
        self.settings.BOILERHOUSE_RAM_DIR = str(directory / "ram")
        self.settings.BOILERHOUSE_RUNTIME = self.setting_of[directory]

    def what_home_has(self) -> dict[str, Any]:
        """Files, containers and rows, none of which may change."""
        names = "tenant_id", "state", "container_ref", "step", "outcome"
        return {
            "files": sorted(str(path) for path in self.home_dir.rglob("*")),
            "engine": {name: one.status for name, one in self.home.containers.items()},
            "rows": sorted(Container.objects.values_list("pk", "state", "fault", "error")),
            "leases": sorted(HostLease.objects.values_list("resource", "released_at")),
            "held": sorted(Assignment.objects.values_list(*names)),
            "activity": list(Assignment.objects.values_list("last_activity_at", flat=True)),
        }


@pytest.fixture
def both(data_dir, tmp_path_factory, settings, monkeypatch) -> Iterator[Nodes]:
    away_dir = tmp_path_factory.mktemp("away")
    shutil.copy(data_dir / "deployment-id", away_dir)
    away, setting_away = choose_runtime(settings, Elsewhere), settings.BOILERHOUSE_RUNTIME
    home = choose_runtime(settings, FakeRuntime)
    setting_of = {data_dir: settings.BOILERHOUSE_RUNTIME, away_dir: setting_away}
    found = Nodes(settings, data_dir, away_dir, home, away, setting_of)
    settings.BOILERHOUSE_TERMINAL = True
    monkeypatch.setattr(firewall, "apply", lambda _network: None)  # these containers have no addresses to filter
    yield found
    unmount_below(away_dir)
    assert not found.away.asked_for, "looked for at the wrong node's engine"


@pytest.fixture
def pool(both) -> Pool:
    return make_pool()


def stand(both: Nodes, pool: Pool, state: ContainerState, tenant: str = "") -> Container:
    """A running container at home with its directories; latched for the tenant if one is given."""
    container = make_container(pool, state=state, state_changed_at=timezone.now() - LONG_AGO)
    volumes.prepare(container.pk, container.uid, make_spec())
    host.leases._lease(f"uid {container.uid}", container.pk)
    if tenant:
        volumes.latch(container.pk, tenant, 1)
    both.home.create(lifecycle.plan_of(container, container.version.spec, "net", Image("sha256:1")))
    both.home.start(lifecycle.runtime_name(container.pk))
    return container


def hold(both: Nodes, pool: Pool, tenant: str, state: AssignmentState, **over: Any) -> Assignment:
    was_assigned = state != AssignmentState.PENDING
    container = stand(both, pool, ContainerState.CLAIMED, tenant if was_assigned else "")
    long_ago = timezone.now() - LONG_AGO
    values = {"was_assigned": was_assigned, "assigned_at": long_ago, "last_activity_at": long_ago}
    return make_assignment(
        tenant, pool=pool, state=state, container=container, container_ref=container.pk, version=container.version,
        uid=container.uid, state_changed_at=long_ago, **values | over,
    )  # fmt: skip


def messages() -> list[tuple[str, tuple[str, ...]]]:
    return [(one.task["func"], tuple(one.task["args"])) for one in OrmQ.objects.order_by("id")]


def keys() -> list[str]:
    return list(OrmQ.objects.order_by("id").values_list("key", flat=True))


def test_a_claim_that_another_nodes_worker_takes_up_keeps_its_healthy_container(both, pool, run_tasks):
    """Its directory is not on this machine, so the container was declared dead and destroyed, and another one
    claimed."""
    claim = hold(both, pool, "alice", AssignmentState.PENDING)
    before = both.what_home_has()
    both.go_away()
    tenants.tasks.prepare(str(claim.pk), str(claim.generation))
    claim.refresh_from_db()
    assert (claim.state, claim.owner) == (AssignmentState.PENDING, None)
    assert both.what_home_has() == before
    assert messages() == [("tenants.tasks.prepare", (str(claim.pk), "1", "0"))]

    both.go_home()
    run_tasks()
    claim.refresh_from_db()
    assert (claim.state, claim.container_ref) == (AssignmentState.ASSIGNED, UUID(before["held"][0][2].hex))
    assert not Event.objects.filter(type="pool.warning").exists()


def test_a_release_is_carried_out_by_the_containers_own_node_only(both, pool, s3):
    """Another node cannot save it; the save neither fails nor completes there (P4)."""
    body = s3.json("two/${tenantId}/")
    keys = {"accessKeyId": s3.access_key, "secretAccessKey": body.pop("secretAccessKey")}
    make_sync_spec(pool, sink=body, sink_secrets=keys)
    held = hold(both, pool, "bob", AssignmentState.ASSIGNED)
    (volumes.volume_path(held.held_container, "state") / "precious").write_text("bob")
    releases.begin("bob")
    before = both.what_home_has()
    both.go_away()
    releases.finish(held.pk)
    held.refresh_from_db()
    assert (held.state, held.outcome, held.owner) == (AssignmentState.RELEASING, "", None)
    assert both.what_home_has() == before
    Assignment.objects.update(next_attempt_at=None, state_changed_at=timezone.now() - LONG_AGO)
    upkeep.orphans.tried.clear()
    assert upkeep.resume_releases() == 1, "its message is sent again"

    both.go_home()
    releases.finish(held.pk)
    held.refresh_from_db()
    assert (held.state, held.outcome) == (AssignmentState.ENDED, "released")
    assert SyncRun.objects.get(tenant_id="bob").state == "succeeded"


def test_a_failed_save_whose_container_is_gone_is_still_its_nodes(both, pool):
    """A discard on another node ended it, with the directory and its uid still in use at home."""
    make_sync_spec(pool)  # at an address where nothing answers
    held = hold(both, pool, "carl", AssignmentState.ASSIGNED)
    lease = f"uid {held.uid}"
    releases.begin("carl")
    releases.finish(held.pk)
    held.refresh_from_db()
    assert (held.state, held.container) == (AssignmentState.RELEASE_FAILED, None)
    releases.begin("carl", discard=True)
    both.go_away()
    releases.finish(held.pk)
    held.refresh_from_db()
    assert (held.state, held.step) == (AssignmentState.RELEASING, ReleaseStep.DESTROYING)
    assert HostLease.objects.filter(pk=lease).exists()

    both.go_home()
    releases.finish(held.pk)
    held.refresh_from_db()
    assert (held.state, held.outcome) == (AssignmentState.ENDED, "discarded")
    assert not volumes.home(held.held_container).exists()
    assert not HostLease.objects.filter(pk=lease).exists()


# Every task -------------------------------------------------------------------------------------------


def _assigned(both: Nodes, pool: Pool) -> Assignment:
    Pool.objects.filter(pk=pool.pk).update(idle_timeout_ms=1000)
    return hold(both, pool, "dora", AssignmentState.ASSIGNED)


def _sync(both: Nodes, pool: Pool) -> list[object]:
    syncs._queue(_assigned(both, pool), [(make_sync_spec(pool), Direction.UPLOAD)], syncs.Trigger.MANUAL)
    return []


def _idle(both: Nodes, pool: Pool) -> list[object]:
    held = _assigned(both, pool)
    return [held.pk, held.generation]


def _frozen(both: Nodes, pool: Pool) -> list[object]:
    held = _assigned(both, pool).held_container
    both.home.pause(lifecycle.runtime_name(held))
    return [held]


def _without_row(both: Nodes, pool: Pool, tenant: str = "") -> UUID:
    container = stand(both, pool, ContainerState.REMOVING, tenant)
    Container.objects.filter(pk=container.pk).delete()
    return container.pk


def _orphan(both: Nodes, pool: Pool) -> list[object]:
    found = _without_row(both, pool)
    return [lifecycle.runtime_name(found), found]


def _releasing(both: Nodes, pool: Pool) -> list[object]:
    return [hold(both, pool, "eva", AssignmentState.RELEASING, step=ReleaseStep.DESTROYING).pk]


def _pending(both: Nodes, pool: Pool) -> list[object]:
    return [hold(both, pool, "fred", AssignmentState.PENDING).pk, 1]


BOUND = {
    pools.tasks.create_container: lambda both, pool: [stand(both, pool, ContainerState.STARTING).pk],
    pools.tasks.destroy_container: lambda both, pool: [stand(both, pool, ContainerState.FAILED).pk],
    pools.tasks.remove_orphan: _orphan,
    pools.tasks.wipe_stray: lambda both, pool: [_without_row(both, pool)],
    pools.tasks.thaw: _frozen,
    tenants.tasks.prepare: _pending,
    tenants.tasks.finish_release: _releasing,
    tenants.tasks.run_syncs: _sync,
    tenants.tasks.check_idle: _idle,
    tenants.tasks.put_away: lambda both, pool: [stand(both, pool, ContainerState.REMOVING, "lost").pk],
}
"""Each task that is about containers, and what makes the arguments of one that has something to do."""
UNBOUND = {
    "refill", "apply_packet_filter", "refresh_names", "keep_packet_filter", "look_at_tags", "tidy",  # this node's own
    "sample_usage", "report_node", "clean_returned_node",
    "remove_leftover",  # by its name at this node's engine, whose list it is from; it has no directory to lose
    "probe_sink", "retry_saves", "put_back", "erase", "forget_old",  # rows and sinks
    "erase_discarded",  # what lies here of a tenant that holds nothing
}  # fmt: skip
GOES_HOME = {
    "create_container", "destroy_container", "wipe_stray", "thaw", "prepare", "finish_release", "put_away",
}  # fmt: skip
"""The others are sent again by the controller, to the right node."""


def test_of_every_task_it_is_said_whether_it_is_about_containers():
    """A new task must be in one of the two lists, and is thereby tested away from home."""
    found = {
        name
        for module in (pools.tasks, tenants.tasks)
        for name, one in vars(module).items()
        if callable(one) and hasattr(one, "__wrapped__") and one.__module__ == module.__name__
    }
    assert found == {one.__name__ for one in BOUND} | UNBOUND


@pytest.mark.parametrize("task", BOUND, ids=lambda task: task.__name__)
def test_a_task_about_another_nodes_container_does_nothing(both, pool, monkeypatch, task):
    """It neither destroys nor judges containers of another node; requests for them go to their node."""
    monkeypatch.setattr("boilerhouse.queues.tasks.log.error", lambda *_, **told: pytest.fail(str(told)))
    arguments = [str(one) for one in BOUND[task](both, pool)]
    before, home = both.what_home_has(), node_id()
    OrmQ.objects.all().delete()
    both.go_away()
    task(*arguments)
    assert both.what_home_has() == before
    name = f"{task.__module__}.{task.__name__}"
    goes_home = task.__name__ in GOES_HOME
    assert [function for function, _ in messages()] == ([name] if goes_home else [])
    assert all(key.endswith(f"@{home}") for key in keys())
    assert not SyncRun.objects.exclude(state="queued").exists()

    both.go_home()
    OrmQ.objects.all().delete()
    task(*arguments)
    assert both.what_home_has() != before or SyncRun.objects.exclude(state="queued").exists(), (
        "at home it does its work"
    )


def taken(queue: str) -> list[str]:
    return [one.queue for one in Broker.take({queue: 9})[0]]


def test_a_worker_takes_the_messages_of_all_and_of_its_node_only(both):
    """A task bound to a node waits for it, however many workers other nodes have."""
    home = node_id()
    both.go_away()
    enqueue("pool", "pools.tasks.refill", "p")
    enqueue("pool", "pools.tasks.destroy_container", uuid4(), node=home)
    enqueue("pool", "pools.tasks.destroy_container", uuid4(), node=node_id())
    assert keys() == ["pool", f"pool@{home}", f"pool@{node_id()}"]
    assert taken("pool") == ["pool", "pool"]
    assert taken("pool") == []
    both.go_home()
    assert taken("pool") == ["pool"]


SENDS: dict[str, Callable[[Nodes, Pool], object]] = {
    "create_container": lambda both, pool: sizing.refill(pool.pk),
    "destroy_container": lambda both, pool: removals.begin(stand(both, pool, ContainerState.IDLE).pk, discard=False),
    "finish_release": lambda both, pool: releases.begin(_assigned(both, pool).tenant_id),
    "prepare": lambda both, pool: (
        hold(both, pool, "hugo", AssignmentState.PENDING, owner=uuid4()), upkeep.resume_claims()
    ),
    "run_syncs": lambda both, pool: _sync(both, pool),
    "check_idle": lambda both, pool: (_idle(both, pool), upkeep.find_idle()),
    "put_away": lambda both, pool: (stand(both, pool, ContainerState.REMOVING, "lost"), upkeep.find_lost()),
    "wipe_stray": lambda both, pool: reconcile._enqueue("wipe_stray", uuid4()),
    "keep_packet_filter": lambda both, pool: controller.keep_packet_filter(),
    "apply_packet_filter": lambda both, pool: firewall.ask(),
    "tidy": lambda both, pool: controller.tidy(),
}  # fmt: skip


SENDERS = {"enqueue", "send", "send_home"}
FOR_ITS_NODE = {task.__name__ for task in BOUND} | {
    "apply_packet_filter",
    "keep_packet_filter",
    "refresh_names",
    "sample_usage",
    "tidy",
}


def test_nobody_sends_what_is_bound_to_a_node_without_saying_which():
    """On the shared queue any worker would take it, and pass it on."""
    root = Path(__file__).resolve().parents[2]
    found = []
    for folder in ("boilerhouse", "pools", "syncing", "tenants"):
        for path in (root / folder).rglob("*.py"):
            for call in ast.walk(ast.parse(path.read_text())):
                if (
                    not isinstance(call, ast.Call)
                    or getattr(call.func, "attr", getattr(call.func, "id", "")) not in SENDERS
                ):
                    continue
                texts = {str(one.value).rpartition(".")[2] for one in call.args if isinstance(one, ast.Constant)}
                if texts & FOR_ITS_NODE and "node" not in {one.arg for one in call.keywords}:
                    found.append(f"{path.relative_to(root)}:{call.lineno}")
    assert found == []


@pytest.mark.parametrize("name", SENDS)
def test_what_is_bound_to_a_node_is_sent_to_its_queue(both, pool, name):
    """Only messages of an earlier version reach the wrong node."""
    Pool.objects.filter(pk=pool.pk).update(min_size=1)
    upkeep.orphans.tried.clear()
    SENDS[name](both, pool)
    sent = [key for key, (function, _) in zip(keys(), messages(), strict=True) if function.endswith(f".{name}")]
    assert sent
    assert {key.partition("@")[2] for key in sent} == {node_id()}


def test_what_waits_for_a_silent_node_is_counted_and_does_not_multiply(both, pool):
    """The controller sent more every few seconds while the node was unreachable."""
    home = node_id()
    [container] = BOUND[pools.tasks.destroy_container](both, pool)
    hold(both, pool, "ivan", AssignmentState.RELEASING, step=ReleaseStep.DESTROYING)
    OrmQ.objects.all().delete()
    Node.objects.filter(pk=home).update(heartbeat_at=timezone.now() - LONG_AGO)
    enqueue("pool", "pools.tasks.destroy_container", container, node=home)
    OrmQ.objects.update(lock=timezone.now() - LONG_AGO)
    node_rows.watch()
    both.go_away()
    upkeep.orphans.tried.clear()
    assert (controller.resume_containers(), upkeep.resume_releases()) == (0, 0)
    assert taken("pool") == []
    assert node_rows.waiting_tasks() == {home: 1}

    Node.objects.update(heartbeat_at=timezone.now())
    node_rows.watch()
    assert (controller.resume_containers(), upkeep.resume_releases()) == (1, 1)
    both.go_home()
    assert taken("pool") == ["pool", "pool"]


def test_an_erasure_reaches_what_was_discarded_on_every_node(both, pool, run_tasks):
    """Only the node that handled the request removed its copies."""
    for go in (both.go_away, both.go_home):
        go()
        deployment.register_node()
        held = hold(both, pool, "kim", AssignmentState.ASSIGNED)
        Assignment.objects.all().delete()
        volumes.discard(held.held_container)
    OrmQ.objects.all().delete()
    state_erasure.begin("kim")
    assert not list(volumes.trash_dir().iterdir())
    both.go_away()
    assert len(list(volumes.trash_dir().iterdir())) == 1
    assert keys() == [f"sync@{node_id()}"]
    run_tasks()
    assert not list(volumes.trash_dir().iterdir())


# Every sweep ------------------------------------------------------------------------------------------


def test_sweeps_of_one_node_keep_to_what_it_has(both, pool, monkeypatch):
    """reconcile, usage, disks, and the searches for frozen, lost and unowned containers."""
    stand(both, pool, ContainerState.IDLE)
    stand(both, pool, ContainerState.REMOVING, "lost")
    _frozen(both, pool)
    _without_row(both, pool, "kept")
    before = both.what_home_has()
    assert host.stray_leases(set()) == []
    monkeypatch.setattr(disks, "EVERY_S", -1)
    both.go_away()
    assert reconcile.find_drift(set()) == []
    assert reconcile.heal(set()) == 0
    assert host.stray_leases(set()) == []
    assert freezer.left_frozen() == []
    assert upkeep.find_lost() == 0
    usage.sample()
    assert not ContainerUsage.objects.exists()
    assert all(not reconcile.look_at(row.pk) for row in Container.objects.all())
    watch = disks.DiskWatch(lambda: True, disks.threading.Event())
    watch.look()
    assert not watch._measured
    assert both.what_home_has() == before


def test_each_node_samples_its_own_containers_and_a_pool_adds_up_all(both, pool, monkeypatch, run_tasks):
    """The leader read its own node's alone, so tenants elsewhere used no CPU, and pools less than they did."""
    used = {"cpu_ns": 1_000_000_000, "memory_bytes": 10, "pids": 1}
    monkeypatch.setattr(usage, "read", lambda _runtime_id: usage.Sample(**used))
    home = node_id()
    remote = stand(both, pool, ContainerState.CLAIMED, "alice")
    both.go_away()
    local = make_container(pool, state=ContainerState.IDLE)
    for _ in range(2):
        controller.sample_usage()
        assert (messages(), keys()) == ([("pools.tasks.sample_usage", ())], [f"pool@{home}"])
        both.go_home()
        run_tasks()
        both.go_away()
        used["cpu_ns"] += 1_000_000_000
    assert ContainerUsage.objects.filter(container_id=remote.pk).count() == 2
    assert ContainerUsage.objects.filter(container_id=local.pk).count() == 2
    controller.sample_usage()
    newest = PoolUsage.objects.latest("at")
    assert newest.memory_bytes == 20
    cores = sum(ContainerUsage.objects.filter(container_id=one.pk).latest("at").cores for one in (remote, local))
    assert newest.cpu_cores == round(cores, 3) > 0


# Every door -------------------------------------------------------------------------------------------


def test_what_is_asked_of_another_nodes_container_is_refused_in_words(both, pool):
    """Commands, shells, logs and previews are refused, and the error names the right node."""
    held = _assigned(both, pool)
    container, home = held.container, held.container.node_id
    both.go_away()
    for ask in (
        lambda: activity.run(container.pk, ("true",), 1000, None),
        lambda: activity.open_terminal(container.pk, "to see", 80, 24),
        lambda: activity.logs(container, 10, None),
        lambda: activity.follow_logs(container, 10, None),
        lambda: previews.of_sync("dora", Direction.UPLOAD),
        lambda: previews.matches_of_tenant("dora", pool.pk, [("/state", "")]),
    ):
        with pytest.raises(OtherNode, match=home):
            ask()
    both.go_home()
    assert activity.run(container.pk, ("true",), 1000, None).exit_code == 0
    assert previews.of_sync("dora", Direction.UPLOAD) == []


def test_an_order_finishes_a_claim_and_a_refused_one_leaves_it_to_the_queue(both, pool, monkeypatch):
    """What the other node answers is not believed: the claim's row says what has become of it."""
    both.settings.BOILERHOUSE_ENCRYPTION_KEYS = list(encryption.in_force())
    orders: list[int] = []
    answers: list[int | None] = [204, 409, None]

    def order(_peer: node_calls.Peer, path: str, body: dict[str, Any], _timeout_s: float) -> node_calls.Answer | None:
        answer = answers[len(orders)]
        orders.append(body["generation"])
        if answer == 204:
            both.go_home()
            assert preparation.take_order(UUID(path.rpartition("/")[2]), body["generation"])
            assert not preparation.take_order(uuid4(), 1)
            both.go_away()
        return None if answer is None else node_calls.Answer(answer, b"")

    monkeypatch.setattr(node_calls, "peer_of", lambda node: node_calls.Peer(node, "127.0.0.1", 1))
    monkeypatch.setattr(node_calls, "post", order)
    for tenant, expected in (
        ("ann", (AssignmentState.ASSIGNED, 0)),
        ("ben", (AssignmentState.PENDING, 1)),
        ("cem", (AssignmentState.PENDING, 2)),
    ):
        stand(both, pool, ContainerState.IDLE)
        both.go_away()
        claims.begin(claims.Claim(tenant, pool.pk, timeout_ms=60_000))
        both.go_home()
        row = Assignment.objects.get(tenant_id=tenant)
        queued = OrmQ.objects.filter(key=f"claim@{node_id()}").count()
        assert (row.state, queued) == expected
        assert row.state == AssignmentState.ASSIGNED or row.owner is None
    assert len(orders) == 3


def test_the_first_command_of_a_claim_is_run_by_the_containers_node(both, pool, monkeypatch):
    """As at home; and a node that does not answer is named in the claim's answer."""
    held = _assigned(both, pool)
    wish = commands.Wish(script="true", env={"A": "1"}, stdin=bytes([0, 255]), timeout_ms=500, size=(80, 24))
    assert commands.Wish.from_json(json.loads(json.dumps(wish.to_json()))) == wish
    wish = commands.Wish(command=("true",))
    sent: list[dict[str, Any]] = []

    def order(_peer: node_calls.Peer, path: str, body: dict[str, Any], _timeout_s: float) -> node_calls.Answer | None:
        sent.append(body)
        if len(sent) > 1:
            return None
        both.go_home()
        monkeypatch.setattr(node_calls, "is_node_server", True)
        request = RequestFactory().post(path, body, "application/json")
        answer = order_views.run_first_command(request, UUID(path.split("/")[-2]))
        both.go_away()
        return node_calls.Answer(answer.status_code, answer.content)

    monkeypatch.setattr(node_calls, "peer_of", lambda node: node_calls.Peer(node, "127.0.0.1", 1))
    monkeypatch.setattr(node_calls, "post", order)
    both.go_away()
    command = claim_commands.ClaimCommand(held.pk, wish, "0" * 32, time.time() + 60)
    shown = command._run(held.held_container)
    assert (shown["exitCode"], shown["error"], sent[0]["actor"]) == (0, None, context.actor())
    assert "did not answer" in command._run(held.held_container)["error"]["detail"]
    request = RequestFactory().post("/", sent[0], "application/json")
    assert order_views.run_first_command(request, held.held_container).status_code == 409, "it is not here"
    monkeypatch.setattr(node_calls, "is_node_server", False)
    with pytest.raises(Http404):
        order_views.run_first_command(request, held.held_container)
    command.forget()


def test_the_api_says_so_with_503(both, pool, client):
    """The next worker may be the right one."""
    held, call = _assigned(both, pool), Call(client)
    both.go_away()
    path = f"containers/{held.held_container}"
    for answer in (
        call("POST", f"{path}/exec", {"command": ["true"]}),
        call("POST", "tenants/dora/exec", {"command": ["true"]}),
        call("GET", f"{path}/logs"),
        call("GET", "tenants/dora/logs"),
        call("GET", "tenants/dora/logs?follow=true"),
    ):
        problem(answer, 503, "other_node")
    assert call("GET", path).status_code == 200, "rows are everybody's"


def test_a_lease_notes_its_node_and_one_without_is_this_nodes(both, pool):
    """Leftovers of a release by an earlier version can only be here."""
    container = stand(both, pool, ContainerState.IDLE)
    lease = HostLease.objects.get(container_id=container.pk)
    assert lease.node_id == container.node_id
    HostLease.objects.update(node=None)
    Container.objects.all().delete()
    shutil.rmtree(volumes.home(container.pk))
    assert [one.pk for one in host.stray_leases(set())] == [lease.pk]
    assert nodes.at_home(uuid4())
