"""A database from before node rows (ADR 57): it migrates, and a new worker runs the tasks queued earlier."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest
from django.conf import settings
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone
from django_q.brokers.orm import ORM
from django_q.models import OrmQ
from django_q.tasks import async_task

from boilerhouse.core import deployment
from boilerhouse.core.models import Node
from boilerhouse.queues.broker import Broker
from boilerhouse.queues.worker import Worker
from pools import firewall, lifecycle, nodes, volumes
from pools.models import Container, HostLease
from pools.runtime.base import Image
from pools.states import ContainerState
from tenants.models import Assignment
from tests.fake_runtime import FakeRuntime
from tests.make import make_spec
from tests.waiting import eventually

BEFORE = [
    ("core", "0007_kept_bytes_of_all"), ("pools", "0012_lease_node"), ("syncing", "0011_marker_bytes"),
    ("tenants", "0013_egress_bound"),
]  # fmt: skip
pytestmark = pytest.mark.any_database
LEFT = ("failed", "starting", "removing")


def queued_by_the_old_code(queue: str, function: str, row: UUID) -> None:
    """As the old ``enqueue`` did: under the queue's name, for any worker."""
    broker = ORM(queue)
    async_task(function, str(row), cluster=queue, q_options={"save": False, "broker": broker})


@pytest.fixture
def old_rows(transactional_db: None, data_dir: Path) -> dict[str, UUID]:
    """Rows that the old code wrote on this node, by state; the schema is the current one when this returns."""
    latest = MigrationExecutor(connection).loader.graph.leaf_nodes()
    here = deployment.node_id()
    MigrationExecutor(connection).migrate(BEFORE)
    try:
        others = [one for one in latest if one[0] not in dict(BEFORE)]
        old = MigrationExecutor(connection).loader.project_state(others + BEFORE).apps
        workload = old.get_model("pools", "Workload").objects.create(id="w", name="w")
        versions = old.get_model("pools", "WorkloadVersion").objects
        version = versions.create(workload=workload, number=1, spec_json=make_spec().to_json())
        pool = old.get_model("pools", "Pool").objects.create(
            id="p", name="p", workload=workload, min_size=1, max_size=5, good_version=version
        )
        rows = {}
        for number, state in enumerate(LEFT):
            made = old.get_model("pools", "Container").objects.create(
                pool=pool, version=version, node=here, uid=210_000 + number, state=state
            )
            # A lease of before pools 0012 says no node.
            old.get_model("pools", "HostLease").objects.create(
                resource=f"uid {made.uid}", container_id=made.pk, node="" if number else here
            )
            rows[state] = made.pk
        held = rows["removing"]
        old.get_model("tenants", "Tenant").objects.create(id="alice", generation=1)
        release = old.get_model("tenants", "Assignment").objects.create(
            tenant_id="alice", pool=pool, generation=1, state="releasing", step="stopping", was_assigned=True,
            container_id=held, container_ref=held, version=version, uid=210_002, deadline=timezone.now(),
        )  # fmt: skip
        queued_by_the_old_code("pool", "pools.tasks.destroy_container", rows["failed"])
        queued_by_the_old_code("pool", "pools.tasks.create_container", rows["starting"])
        queued_by_the_old_code("save", "tenants.tasks.finish_release", release.pk)
    finally:
        MigrationExecutor(connection).migrate(latest)
    return rows


@pytest.fixture
def engine(fake_engine: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> FakeRuntime:
    monkeypatch.setattr(firewall, "apply", lambda _network: None)
    monkeypatch.setattr(nodes.Host, "ensure_ram_dir", lambda: None)
    return fake_engine


def stand(engine: FakeRuntime, container: Container) -> None:
    """A running container with its directories."""
    volumes.prepare(container.pk, container.uid, container.version.spec)
    engine.create(lifecycle.plan_of(container, container.version.spec, "net", Image("sha256:1")))
    engine.start(lifecycle.runtime_name(container.pk))


def test_a_new_worker_serves_the_database_of_the_commit_before(old_rows, engine):
    """Messages under the queues' old names are processed, and rows without a node get one."""
    here = deployment.node_id()
    assert list(Node.objects.values_list("pk", flat=True)) == [here]
    assert set(OrmQ.objects.values_list("key", flat=True)) == {"pool", "save"}
    assert set(HostLease.objects.values_list("node_id", flat=True)) == {here, None}
    for state in ("failed", "removing"):
        stand(engine, Container.objects.get(pk=old_rows[state]))
    volumes.latch(old_rows["removing"], "alice", 1)

    worker = Worker(settings.QUEUES)
    worker.start()
    try:
        eventually(lambda: not OrmQ.objects.exists(), 30)
        eventually(lambda: Assignment.objects.filter(state="ended", outcome="released").exists(), 30)
        eventually(lambda: Container.objects.filter(state=ContainerState.IDLE).exists(), 30)
    finally:
        assert worker.stop(20) == []
    assert Container.objects.get(state=ContainerState.IDLE).pk == old_rows["starting"]
    for state in ("failed", "removing"):
        assert not Container.objects.filter(pk=old_rows[state]).exists()
        assert not volumes.home(old_rows[state]).exists()
        assert not HostLease.objects.filter(container_id=old_rows[state]).exists()
    assert lifecycle.runtime_name(old_rows["starting"]) in engine.containers
    assert not Broker.take({"pool": 9, "save": 9})[0]
