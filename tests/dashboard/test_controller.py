"""Each step of the controller by itself: its decisions, the tasks that it queues, and that repeating it changes
nothing."""

from __future__ import annotations

import os
import time
from datetime import timedelta

import pytest
from django.utils import timezone
from django_q.models import OrmQ

from boilerhouse.controller import controller
from boilerhouse.core.models import Event, Lease, Process, QueueHealth
from boilerhouse.process import processes
from boilerhouse.queues import service
from pools import volumes
from pools.models import Container, Pool
from pools.states import ContainerState, Fault
from tenants import idle, upkeep
from tenants.models import Assignment
from tenants.states import AssignmentState, ReleaseReason
from tests.make import make_container, make_held, make_pool, make_sync_spec

LONG_AGO = timedelta(minutes=5)


@pytest.fixture(autouse=True)
def _fresh(data_dir):
    controller._sent.clear()
    upkeep.orphans.tried.clear()


def idle_holder(pool: Pool | None = None, tenant: str = "alice", fault: str = "", **over) -> Assignment:
    """A tenant that has been idle for long, in an equally old container."""
    container = make_container(pool, state=ContainerState.CLAIMED, fault=fault)
    Container.objects.filter(pk=container.pk).update(state_changed_at=timezone.now() - LONG_AGO)
    return make_held(tenant=tenant, container=container, **{"last_activity_at": timezone.now() - LONG_AGO, **over})


def queued() -> list[str]:
    return sorted(message.task["func"].rpartition(".")[2] for message in OrmQ.objects.all())


def test_fill_pools_enqueues_for_pools_that_are_off_and_only_for_those():
    make_pool(min_size=0)
    off = make_pool(min_size=1)
    full = make_pool(min_size=1)
    make_container(full)

    assert controller.fill_pools() == 1
    assert [m.task["args"] for m in OrmQ.objects.all()] == [(off.pk,)]


def test_resume_containers_hands_on_what_nobody_living_works_on_once():
    old = timezone.now() - LONG_AGO
    dead = Process.objects.create(
        kind="worker", pid_space=processes.pid_space(), boot_id=processes.boot_id(), pid=2**22, pid_started=1
    )
    for state in (ContainerState.STARTING, ContainerState.REMOVING, ContainerState.FAILED):
        make_container(state=state, owner=dead.pk, state_changed_at=old)
    make_container(state=ContainerState.STARTING, owner=processes.current(), state_changed_at=old)
    make_container(state=ContainerState.STARTING)

    assert controller.resume_containers() == 3
    assert controller.resume_containers() == 0
    assert queued() == ["create_container", "destroy_container", "destroy_container"]


@pytest.mark.parametrize("fault", [Fault.EXIT, Fault.OOM, Fault.VANISHED])
def test_release_dead_ends_the_assignment_with_its_reason(fault):
    row = idle_holder(fault=fault)
    idle_holder(tenant="bob", fault=Fault.UNHEALTHY)

    assert upkeep.release_dead() == 1
    row.refresh_from_db()
    assert (row.state, row.reason) == (AssignmentState.RELEASING, ReleaseReason.CONTAINER_DIED)
    assert queued() == ["finish_release"]
    assert upkeep.release_dead() == 0


def test_release_unhealthy_only_where_the_pool_says_so():
    idle_holder(tenant="bob", fault=Fault.UNHEALTHY)
    row = idle_holder(make_pool(on_unhealthy="release"), fault=Fault.DISK)

    assert upkeep.release_unhealthy() == 1
    row.refresh_from_db()
    assert row.reason == ReleaseReason.UNHEALTHY


def test_find_idle_looks_only_at_overdue_assignments_of_pools_with_a_timeout_and_once():
    pool = make_pool(idle_timeout_ms=60_000)
    idle_holder(pool, "overdue")
    idle_holder(pool, "active", last_activity_at=timezone.now())
    idle_holder(tenant="no-timeout")

    assert upkeep.find_idle() == 1
    assert upkeep.find_idle() == 0
    assert queued() == ["check_idle"]


def test_a_heartbeat_that_comes_in_between_wins_against_the_idle_release():
    """The controller's view may be stale; one statement decides."""
    row = idle_holder(make_pool(idle_timeout_ms=60_000))
    volumes.prepare(row.held_container, 200_001, row.version.spec)
    upkeep.find_idle()
    idle.heartbeat("alice")

    assert idle.check(row.pk, row.generation) is False
    row.refresh_from_db()
    assert row.state == AssignmentState.ASSIGNED
    assert idle.check(row.pk, row.generation + 1) is False, "a later claim's container is not this one's"


def test_files_that_changed_are_activity_whatever_their_mtime_says(data_dir):
    row = idle_holder(make_pool(idle_timeout_ms=60_000))
    volumes.prepare(row.held_container, 200_001, row.version.spec)
    state = volumes.volume_path(row.held_container, "state")
    os.utime(state, (0, 0))
    (state / "f").write_text("x")
    os.utime(state / "f", (2**31, 2**31))
    assert idle.check(row.pk, row.generation) is False
    row.refresh_from_db()
    assert abs(row.last_activity_at - timezone.now()) < timedelta(minutes=1), "not 2038, not 1970: ctime"


def test_an_overdue_assignment_whose_files_lie_still_is_released(data_dir):
    row = idle_holder(make_pool(idle_timeout_ms=60_000))
    volumes.prepare(row.held_container, 200_001, row.version.spec)
    assert idle.check(row.pk, row.generation) is False, "its directory was made just now"
    Pool.objects.update(idle_timeout_ms=1)
    time.sleep(0.05)
    assert idle.check(row.pk, row.generation) is True
    row.refresh_from_db()
    assert (row.state, row.reason) == (AssignmentState.RELEASING, ReleaseReason.IDLE)


def test_retire_unheld_takes_away_what_is_claimed_by_nobody():
    held = idle_holder()
    old = timezone.now() - LONG_AGO
    nobody = make_container(state=ContainerState.CLAIMED, state_changed_at=old)
    make_container(state=ContainerState.CLAIMED)

    assert upkeep.retire_unheld() == 1
    nobody.refresh_from_db()
    assert nobody.state == ContainerState.REMOVING
    assert Container.objects.get(pk=held.held_container).state == ContainerState.CLAIMED


def test_probe_sinks_enqueues_for_unhealthy_ones_and_for_those_that_hold_up_saves():
    make_sync_spec(sink_health={"state": "healthy"})
    make_sync_spec(sink_health={"state": "unhealthy"})
    make_sync_spec(make_pool(release_failed=1), sink_health={"state": "healthy"})

    assert controller.probe_sinks() == 2
    assert queued() == ["probe_sink", "probe_sink"]


def test_backups_expire_once_per_sink_however_many_specs_share_it():
    make_sync_spec()
    make_sync_spec()
    make_sync_spec(sink={"bucket": "another"})

    assert controller.expire_backups() == 2
    assert queued() == ["expire_backups", "expire_backups"]


def test_a_queue_that_stopped_serving_is_said_once_and_again_when_it_serves():
    QueueHealth.objects.create(name="sync", served_at=timezone.now() - LONG_AGO)
    QueueHealth.objects.create(name="pool", served_at=timezone.now())
    assert set(service.unserved_queues()) == {"sync"}
    for _ in range(3):
        service.watch_queues()
    assert Event.objects.filter(type="pool.warning").count() == 1
    QueueHealth.objects.filter(name="sync").update(served_at=timezone.now())
    for _ in range(3):
        service.watch_queues()
    assert Event.objects.filter(type="pool.recovered").count() == 1


def test_one_leads_until_its_lease_ends_or_it_gives_it_back():
    """A lease row on both databases."""
    assert controller.lead()
    Lease.objects.update(holder=Process.objects.create(
        kind="controller", pid_space="other", boot_id="x", pid=1, pid_started=1
    ).pk)  # fmt: skip
    assert not controller.lead()
    Lease.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert controller.lead()
    controller.release_leadership()
    assert Lease.objects.get().holder is None
