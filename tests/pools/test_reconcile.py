"""Rows compared with engine and disk: what is repaired and what is left alone (hazards.md#d2, #d3, #d5, P9)."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from django.utils import timezone
from django_q.models import OrmQ

from boilerhouse.core import deployment, failpoints
from boilerhouse.core.models import Event
from pools import firewall, health_reports, host, lifecycle, nodes, reconcile, sizing, volumes
from pools.errors import EngineUnavailable
from pools.models import Container, HostLease, Pool
from pools.runtime import seccomp
from pools.runtime.base import ContainerPlan
from pools.states import ContainerHealth, ContainerState, Fault, Trouble
from tests.fake_runtime import FakeRuntime
from tests.make import make_container, make_pool
from tests.power_cut import PowerCut


@pytest.fixture
def engine(data_dir, fake_engine, monkeypatch, settings):
    settings.BOILERHOUSE_ORPHAN_GRACE_S = 10
    monkeypatch.setattr(firewall, "apply", lambda network: None)
    monkeypatch.setattr(nodes.Host, "ensure_ram_dir", lambda: None)
    (data_dir / "ram").mkdir()
    return fake_engine


def old(container: Container) -> Container:
    Container.objects.filter(pk=container.pk).update(state_changed_at=timezone.now() - timedelta(minutes=1))
    container.refresh_from_db()
    return container


def at_engine(engine: FakeRuntime, container_id, nonce="", name="", **over):
    labels = {**host.labels(), lifecycle.CONTAINER_LABEL: str(container_id), lifecycle.NONCE_LABEL: nonce}
    labels[lifecycle.PROFILE_LABEL] = seccomp.version()
    plan = ContainerPlan(
        name=name or lifecycle.runtime_name(container_id), image="i", command=(), environment={},
        labels={**labels, **over.pop("labels", {})}, uid=1, mounts=(), network="n", address=None, dns=(), ports=(),
        exposed=(), read_only_root=True, cpus=1, memory_mb=1, pids_limit=1, shm_mb=1, tmpfs=(), placeholder="", runtime=None,
        probe=None, stop_timeout_ms=1,
    )  # fmt: skip
    engine.create(plan)
    found = engine.containers[plan.name]
    found.status, found.created_at = over.get("status", "running"), over.get("created_at", 0.0)
    return found


def drift(held=frozenset()):
    return {(d.kind, d.subject) for d in reconcile.find_drift(set(held))}


def run_messages():
    import importlib

    for message in OrmQ.objects.order_by("id"):
        task = message.task
        message.delete()
        module, _, name = task["func"].rpartition(".")
        getattr(importlib.import_module(module), name)(*task["args"])


def test_rows_and_engine_that_agree_are_no_drift(engine):
    container = old(make_container())
    volumes.prepare(container.pk, 200_001, container.version.spec)
    at_engine(engine, container.pk, container.nonce)

    assert drift() == set()


def test_an_orphan_is_removed_after_a_grace_period_with_its_directory(engine, data_dir):
    stray = uuid.uuid4()
    found = at_engine(engine, stray)
    (volumes.home(stray)).mkdir(parents=True)
    reconcile.heal(set())
    run_messages()
    assert not engine.containers
    assert not volumes.home(stray).exists()

    import time

    found = at_engine(engine, uuid.uuid4(), created_at=time.time())
    assert {kind for kind, _ in drift()} == {"young_orphan"}
    reconcile.heal(set())
    run_messages()
    assert found.plan.name in engine.containers


def test_an_orphan_that_saw_a_tenant_is_stopped_and_kept_and_said_once(engine):
    """After a loss or an old backup of the database, every tenant's container is an orphan."""
    stray = uuid.uuid4()
    found = at_engine(engine, stray)
    volumes.home(stray).mkdir(parents=True)
    volumes.latch(stray, "alice", 7)
    for _ in range(3):
        reconcile.heal(set())
        run_messages()

    assert found.status == "exited"
    assert volumes.read_latch(stray)
    assert Event.objects.filter(type="pool.warning").count() == 1
    assert drift() == {("latched_orphan", found.plan.name), ("quarantined", str(stray))}


def test_a_container_of_a_row_with_another_nonce_is_not_taken_for_it(engine):
    """After a database reset names may repeat; the nonce distinguishes them."""
    container = old(make_container())
    volumes.prepare(container.pk, 200_001, container.version.spec)
    found = at_engine(engine, container.pk, "of-another-database")

    kinds = {kind for kind, _ in drift()}
    assert kinds == {"orphan", "vanished"}
    reconcile.heal(set())
    run_messages()
    assert found.plan.name not in engine.containers


def test_an_idle_container_that_has_seen_a_tenant_is_taken_out_before_anybody_gets_it(engine):
    """An older database reports it as idle, while its tenant still works in it."""
    container = old(make_container())
    volumes.prepare(container.pk, 200_001, container.version.spec)
    at_engine(engine, container.pk, container.nonce)
    volumes.latch(container.pk, "alice", 7)
    (found,) = reconcile.find_drift(set())
    assert found.kind == "latched_idle"

    Container.objects.filter(pk=container.pk).update(state="claimed", state_changed_at=timezone.now())
    found.heal()
    assert Container.objects.get().state == ContainerState.CLAIMED, "claimed meanwhile, which is what latched it"

    old(container)
    Container.objects.filter(pk=container.pk).update(state="idle")
    reconcile.heal(set())
    assert Container.objects.get().state == ContainerState.REMOVING
    assert volumes.read_latch(container.pk), "its state may be unsaved"


def test_what_is_not_ours_is_never_touched(engine):
    """No label, or another deployment's (P9)."""
    for labels in ({host.DEPLOYMENT_LABEL: "another"}, {host.DEPLOYMENT_LABEL: ""}):
        at_engine(engine, uuid.uuid4(), labels=labels)
    before = dict(engine.containers)

    assert drift() == set()
    lifecycle.remove_orphan(next(iter(before.values())).runtime_id, None)
    assert engine.containers == before


def test_a_vanished_idle_container_is_replaced_a_claimed_one_is_left_to_its_tenant(engine):
    pool = make_pool(min_size=2)
    idle, claimed = old(make_container(pool)), old(make_container(pool, state=ContainerState.CLAIMED))
    young = make_container(pool)
    reconcile.heal({claimed.pk})

    for container in (idle, claimed, young):
        container.refresh_from_db()
    assert (idle.state, idle.fault) == (ContainerState.REMOVING, Fault.VANISHED)
    assert (claimed.state, claimed.fault) == (ContainerState.CLAIMED, Fault.VANISHED)
    assert (young.state, young.fault) == (ContainerState.IDLE, "")
    assert Event.objects.filter(type="container.unhealthy").count() == 2
    reconcile.heal({claimed.pk})
    assert Event.objects.filter(type="container.unhealthy").count() == 2


@pytest.mark.parametrize(
    ("exit_code", "is_oom", "fault", "words"),
    [(0, False, Fault.EXIT, "exit code 0"), (137, False, Fault.EXIT, "137"), (137, True, Fault.OOM, "memoryMb")],
)
def test_the_reason_of_a_death_is_told_apart(engine, exit_code, is_oom, fault, words):
    container = old(make_container(state=ContainerState.CLAIMED))
    at_engine(engine, container.pk, container.nonce, status="exited").exit_code = exit_code
    reconcile.look_at(container.pk, is_oom=is_oom)

    container.refresh_from_db()
    assert container.fault == fault
    assert words in container.error


def test_health_of_the_engine_is_taken_over_and_an_unhealthy_idle_one_replaced(engine):
    idle, claimed = make_container(), make_container(state=ContainerState.CLAIMED)
    assert health_reports.report_health(idle.pk, "healthy")
    assert not health_reports.report_health(idle.pk, "healthy")
    health_reports.report_health(idle.pk, "unhealthy")
    health_reports.report_health(claimed.pk, "unhealthy")
    idle.refresh_from_db()
    claimed.refresh_from_db()
    assert idle.state == ContainerState.REMOVING
    assert (claimed.state, claimed.health) == (ContainerState.CLAIMED, ContainerHealth.UNHEALTHY)

    health_reports.report_health(claimed.pk, "healthy")
    claimed.refresh_from_db()
    assert (claimed.health, claimed.fault) == (ContainerHealth.HEALTHY, "")


def test_directories_and_leases_without_a_row_are_freed(engine, data_dir):
    gone = uuid.uuid4()
    HostLease.objects.create(resource="uid 200007", container_id=gone)
    HostLease.objects.create(resource="10.99.0.9", container_id=gone)
    secret = volumes.secrets_dir(gone)
    secret.mkdir(parents=True)
    import os

    os.utime(secret.parent, (0, 0))
    assert drift() == {("stray_directory", str(gone)), ("stray_lease", "uid 200007"), ("stray_lease", "10.99.0.9")}
    reconcile.heal(set())
    run_messages()

    assert not secret.exists()
    assert not HostLease.objects.filter(resource="uid 200007").exists()
    assert HostLease.objects.get(resource="10.99.0.9").released_at, "an address rests before it is given again"


def test_a_directory_that_waits_for_its_save_is_not_a_stray_and_its_container_goes(engine):
    """release_failed: the row is deleted, the directory stays."""
    waiting = uuid.uuid4()
    volumes.home(waiting).mkdir(parents=True)
    volumes.latch(waiting, "alice", 1)
    at_engine(engine, waiting)

    assert drift({waiting}) == {("leftover", lifecycle.runtime_name(waiting))}
    reconcile.heal({waiting})
    run_messages()
    assert not engine.containers
    assert volumes.read_latch(waiting)


def die() -> None:
    raise PowerCut


def test_a_create_that_died_before_its_row_knew_is_adopted_not_doubled(engine, monkeypatch):
    """Creating twice finds the first: the name follows from the id, the nonce says that it is ours."""
    pool = make_pool(min_size=1)
    sizing.refill(pool.pk)
    row = Container.objects.get()
    monkeypatch.setitem(failpoints.hooks, "engine.created", die)
    with pytest.raises(PowerCut):
        lifecycle.start_container(row.pk)
    failpoints.hooks.clear()
    before = engine.containers[lifecycle.runtime_name(row.pk)].runtime_id

    assert lifecycle.start_container(row.pk) is True
    row.refresh_from_db()
    assert (row.state, row.runtime_id) == (ContainerState.IDLE, before)
    assert len(engine.containers) == 1


@pytest.mark.parametrize("moment", ["address", "create"])
def test_a_start_that_another_process_has_taken_over_writes_nothing(engine, monkeypatch, moment):
    """Its process was declared dead; the row then named an address that the container does not have."""
    make_pool(id="taken", min_size=1)
    sizing.refill("taken")
    row, another = Container.objects.get(), uuid.uuid4()
    module, name = {"address": (engine, "find_image"), "create": (engine, "create")}[moment]
    usual = getattr(module, name)

    def taken_over(*arguments):
        Container.objects.update(owner=another, address="10.99.0.77", runtime_id="theirs")
        return usual(*arguments)

    monkeypatch.setattr(module, name, taken_over)
    assert not lifecycle.start_container(row.pk)
    row.refresh_from_db()
    assert (row.owner, row.address, row.runtime_id, row.state) == (another, "10.99.0.77", "theirs", "starting")
    assert not any(one.status == "running" for one in engine.containers.values())


def test_an_engine_that_is_away_is_said_once_on_every_pool_and_pools_go_on_when_it_is_back(engine):
    pool = make_pool(min_size=1)
    engine.is_down = True
    with pytest.raises(EngineUnavailable):
        reconcile.find_drift(set())
    for _ in range(3):
        reconcile.engine_is_down("It does not answer. Start it.")
    pool.refresh_from_db()
    assert (pool.trouble, pool.last_error) == (Trouble.ENGINE_DOWN, "It does not answer. Start it.")
    assert Event.objects.filter(type="pool.warning").count() == 1

    OrmQ.objects.all().delete()
    reconcile.engine_is_back()
    pool.refresh_from_db()
    assert (pool.trouble, pool.last_error, pool.next_start_at) == ("", "", None)
    assert [m.task["func"] for m in OrmQ.objects.all()] == ["pools.tasks.refill"]
    assert Event.objects.filter(type="pool.recovered").count() == 1


def test_a_create_whose_answer_never_came_keeps_its_slot_a_while(engine, monkeypatch):
    """The engine may still execute it; the row is deleted only when that is impossible."""
    from pools.errors import EngineTimeout

    pool = make_pool(min_size=1, max_size=1)
    sizing.refill(pool.pk)
    row = Container.objects.get()
    ghosts = []

    def create(plan):
        ghosts.append(plan)
        raise EngineTimeout

    monkeypatch.setattr(engine, "create", create)
    lifecycle.start_container(row.pk)
    lifecycle.destroy_container(row.pk)
    row.refresh_from_db()
    assert row.state == ContainerState.REMOVING
    Pool.objects.update(next_start_at=None)
    assert sizing.refill(pool.pk) == 0, "its slot is taken"

    monkeypatch.undo()
    Container.objects.update(keep_until=timezone.now())


def test_a_full_disk_stops_refills_says_so_and_they_go_on_by_themselves(engine, settings):
    pool = make_pool(min_size=2)
    settings.BOILERHOUSE_DISK_FLOOR_MB = 10**9
    for _ in range(3):
        assert sizing.refill(pool.pk) == 0
    pool = Pool.objects.with_counts().get()
    assert pool.status().state == "error"
    assert "BOILERHOUSE_DISK_FLOOR_MB" in pool.last_error
    assert Event.objects.filter(type="pool.warning").count() == 1

    settings.BOILERHOUSE_DISK_FLOOR_MB = 1
    assert sizing.is_off(pool)
    assert sizing.refill(pool.pk) == 2
    pool.refresh_from_db()
    assert (pool.trouble, pool.last_error) == ("", "")


def start_all() -> None:
    for row in Container.objects.filter(state="starting"):
        lifecycle.start_container(row.pk)
    for row in Container.objects.filter(state="failed"):
        lifecycle.destroy_container(row.pk)


def test_a_broken_image_is_tried_once_per_back_off_and_the_pool_recovers(engine):
    pool = make_pool(min_size=5, good_version=None)
    spec = pool.workload.latest.spec
    engine.broken_images.add(spec.image)
    for tries in range(1, 5):
        Pool.objects.update(next_start_at=None)
        for _ in range(3):
            sizing.refill(pool.pk)
            start_all()
        pool.refresh_from_db()
        assert len(engine.creates) == pool.failures == tries
    assert (pool.next_start_at - timezone.now()).total_seconds() > 5  # 10 since the last start
    assert not Container.objects.exists()
    assert Event.objects.filter(type="pool.warning").count() == 1

    engine.broken_images.clear()
    Pool.objects.update(next_start_at=None)
    for _ in range(3):
        sizing.refill(pool.pk)
        start_all()
    pool.refresh_from_db()
    assert Container.objects.idle().count() == 5
    assert (pool.failures, pool.last_error, pool.trouble) == (0, "", "")


def test_starts_that_were_decided_before_the_first_failed_are_called_off(engine):
    """An image disappears under a healthy pool: running starts fail, queued ones are not tried."""
    pool = make_pool(min_size=5)
    sizing.refill(pool.pk)
    engine.broken_images.add(pool.workload.latest.spec.image)
    start_all()
    pool.refresh_from_db()

    assert len(engine.creates) == 1
    assert pool.failures == 1
    assert not Container.objects.exists()


def test_no_address_and_no_rule_are_the_hosts_trouble_and_said(engine, monkeypatch):
    from pools.errors import HostNotReady

    def refuse():
        raise HostNotReady("No /16 network is free on this host; set BOILERHOUSE_SUBNET.")

    pool = make_pool(min_size=2)
    monkeypatch.setattr(nodes.Host, "ensure_network", refuse)
    sizing.refill(pool.pk)
    start_all()
    pool = Pool.objects.with_counts().get()
    assert (pool.trouble, pool.status().state) == (Trouble.HOST_NOT_READY, "error")
    assert "BOILERHOUSE_SUBNET" in pool.last_error
    assert not engine.creates


def test_the_nodes_id_is_made_once_and_stays(data_dir):
    first = deployment.node_id()
    deployment._node_id.cache_clear()

    assert deployment.node_id() == first == (data_dir / "node-id").read_text()
