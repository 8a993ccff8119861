"""Node rows: created when a node starts, visible to all processes without a live worker, and created by the
migration."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models import F
from django.urls import reverse
from django.utils import timezone

from boilerhouse.attention import causes
from boilerhouse.attention.cause import Kind
from boilerhouse.core import deployment, nodes
from boilerhouse.core.models import Event, Node, Process
from boilerhouse.core.states import NodeState
from boilerhouse.operations import doctor
from boilerhouse.operations.metrics import DatabaseCollector
from boilerhouse.process import processes
from pools.host.leases import _lease
from pools.models import Container, HostLease, NetworkReport
from tests.make import make_container, make_node

pytestmark = pytest.mark.any_database
BEFORE = [("core", "0007_kept_bytes_of_all"), ("pools", "0012_lease_node")]


def age(node: Node, by: timedelta) -> None:
    Node.objects.filter(pk=node.pk).update(heartbeat_at=F("heartbeat_at") - by)


def test_a_process_has_its_nodes_row_made_and_a_worker_keeps_it_alive(data_dir, monkeypatch):
    monkeypatch.setattr(processes, "HEARTBEAT_S", 0.01)
    monkeypatch.setattr(processes, "_kind", Process.Kind.WEB)
    row = Process.objects.get(pk=processes.current())
    processes.stop_heartbeat(wait=False)
    node = Node.objects.get()
    assert (row.node_id, row.pid_space) == (node.pk, processes.pid_space())
    assert (node.pk, node.state) == (deployment.node_id(), NodeState.ACTIVE)

    age(node, timedelta(hours=1))
    nodes.beat()
    node.refresh_from_db()
    assert abs(node.heartbeat_at - timezone.now()) < timedelta(minutes=10)


def test_a_machine_that_is_renamed_stays_the_same_node(data_dir, monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "other")
    deployment.register_node()
    assert Node.objects.get().name == "other"


def test_a_silent_node_is_said_everywhere_and_so_is_its_return(data_dir, settings, rf):
    there = make_node("there")
    deployment.register_node()
    assert nodes.watch() == 0
    age(there, nodes.SILENT_AFTER)
    assert (nodes.watch(), nodes.watch()) == (1, 0)
    assert Node.objects.get(state=NodeState.SILENT).pk == "there"
    event = Event.objects.get(type="node.silent")
    assert event.payload["node"] == "there"
    assert any("the node there" in one[1] for one in doctor._processes())
    assert [one.subject for one in causes.present() if one.kind == Kind.NODE_LOST] == ["there"]
    [family] = [one for one in DatabaseCollector().collect() if one.name == "boilerhouse_node_silent"]
    found = {sample.labels["node"]: sample.value for sample in family.samples}
    assert found == {"there": 1.0, deployment.node_id(): 0.0}

    Node.objects.update(heartbeat_at=timezone.now())
    assert nodes.watch() == 1
    assert Event.objects.get(type="node.returned").payload["node"] == "there"
    assert not Node.objects.filter(state=NodeState.SILENT).exists()


def test_a_node_is_forgotten_when_it_is_silent_for_long_and_has_nothing(data_dir):
    """Only its reports were left."""
    holds, leased, gone = make_node("holds"), make_node("leased"), make_node("gone")
    make_container(node="holds")
    HostLease.objects.create(resource="uid 1", container_id=uuid4(), node=leased)
    NetworkReport.objects.create(node=gone)
    assert nodes.forget_gone() == 0
    for node in (holds, leased, gone):
        age(node, nodes.FORGET_AFTER)
    nodes.watch()
    assert nodes.forget_gone() == 1
    assert set(Node.objects.values_list("pk", flat=True)) == {"holds", "leased", deployment.node_id()}
    assert not NetworkReport.objects.exists()


def test_the_api_and_the_pages_name_nodes_as_before(call, admin_client):
    """API v1's field is the id, not a row."""
    container = make_container(node="machine-1-abcdef")
    assert call("GET", f"containers/{container.pk}").json()["node"] == "machine-1-abcdef"
    assert "machine-1-abcdef" in admin_client.get(reverse("container", args=[container.pk])).content.decode()
    Process.objects.create(
        kind="worker",
        node=container.node,
        pid_space="x",
        boot_id="x",
        pid=1,
        pid_started=1,
        heartbeat_at=timezone.now(),
    )
    assert "machine-1-abcdef" in admin_client.get(reverse("settings")).content.decode()


def test_a_database_of_the_version_before_gets_a_row_for_every_node_that_it_names(transactional_db, data_dir):
    """Its values stay, and rows that older processes still write are valid."""
    everything = MigrationExecutor(connection).loader.graph.leaf_nodes()
    executor = MigrationExecutor(connection)
    executor.migrate(BEFORE)
    try:
        old = MigrationExecutor(connection).loader.project_state(
            [one for one in everything if one[0] not in ("core", "pools")] + BEFORE
        ).apps  # fmt: skip
        workload = old.get_model("pools", "Workload").objects.create(id="w", name="w")
        version = old.get_model("pools", "WorkloadVersion").objects.create(workload=workload, number=1, spec_json={})
        pool = old.get_model("pools", "Pool").objects.create(id="p", name="p", workload=workload)
        container = old.get_model("pools", "Container").objects.create(
            pool=pool, version=version, node="one-123456", uid=1
        )
        leases = old.get_model("pools", "HostLease").objects
        leases.create(resource="uid 1", container_id=container.pk, node="two-123456")
        leases.create(resource="uid 2", container_id=container.pk, node="")
        old.get_model("pools", "NetworkReport").objects.create(node="three-123456")
        old.get_model("core", "Process").objects.create(
            kind="web", node="machine pid:[1]", boot_id="b", pid=1, pid_started=1
        )
    finally:
        MigrationExecutor(connection).migrate(everything)
    here = deployment.node_id()
    assert dict(Node.objects.values_list("pk", "name")) == {
        "one-123456": "one", "two-123456": "two", "three-123456": "three", here: here.rpartition("-")[0],
    }  # fmt: skip
    assert Container.objects.get().node.name == "one"
    assert dict(HostLease.objects.values_list("pk", "node_id")) == {"uid 1": "two-123456", "uid 2": None}
    assert {one.pk for one in HostLease.objects.here()} == {"uid 2"}
    process = Process.objects.get(pid=1)
    assert (process.node_id, process.pid_space) == (None, "machine pid:[1]")
    assert _lease("uid 3", uuid4())
