"""Large transfers wait in the queue without a worker, and leave one worker for other work (P14)."""

from __future__ import annotations

import time
from contextlib import ExitStack
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django_q.models import OrmQ

from boilerhouse.core.models import AuditEntry
from boilerhouse.process import processes
from boilerhouse.process.budgets import BudgetExceeded
from boilerhouse.queues import slow_work
from boilerhouse.queues.broker import Broker
from pools import volumes
from syncing.models import SyncRun
from syncing.states import Direction, Trigger
from tenants import releases, syncs, upkeep
from tenants.models import Assignment
from tenants.states import AssignmentState
from tests.fake_engine_rows import hold
from tests.task_queue import queued_tasks

pytestmark = pytest.mark.any_database


@pytest.fixture
def pool(saving_pool):
    return saving_pool


def taken(queue: str, seconds: float = 20):
    """A message of the queue as soon as a worker may take one."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := Broker.take({queue: 1})[0]:
            return found
        time.sleep(0.05)
    raise AssertionError(f"no message of the queue {queue} is free")


@pytest.fixture
def busy(settings, serve):
    """A worker of this queue, while all other workers but one are busy with large work."""
    settings.BOILERHOUSE_LARGE_BYTES = 1
    with ExitStack() as held:

        def of(queue: str) -> None:
            serve(queue)
            for _ in range(settings.QUEUES[queue]["workers"] - 1):
                assert held.enter_context(slow_work.entered(1))

        of.free = held.close
        yield of


def test_a_large_release_is_put_off_and_taken_up_when_there_is_room(pool, fake_engine, busy):
    """It occupies no worker, and is not forgotten (P14)."""
    mine = hold(pool, fake_engine, "alice")
    syncs.begin("alice", "outward")
    syncs.run_next()
    busy("save")
    assert releases.fence(Assignment.objects.filter(pk=mine.pk))
    releases.finish(mine.pk)
    mine.refresh_from_db()
    assert (mine.state, mine.owner) == (AssignmentState.RELEASING, None)
    assert mine.next_attempt_at > timezone.now()
    busy.free()
    Assignment.objects.update(next_attempt_at=None, state_changed_at=timezone.now() - timedelta(seconds=60))
    assert upkeep.resume_releases() == 1
    releases.finish(mine.pk)
    mine.refresh_from_db()
    assert (mine.state, mine.outcome) == (AssignmentState.ENDED, "released")


def test_a_sync_of_a_locked_container_gives_its_worker_up(pool, fake_engine):
    """Its message returns to the queue for a short time, and the run stays queued."""
    mine = hold(pool, fake_engine, "alice")
    run = syncs.begin("alice", "outward")[0]
    OrmQ.objects.all().delete()
    with volumes.locked(mine.held_container):
        syncs.run_next()
    run.refresh_from_db()
    assert run.state == "queued"
    assert queued_tasks("tenants.tasks.run_syncs") == 1
    assert not Broker.take({"sync": 1})[0], "not at once"
    assert taken("sync")
    syncs.run_next()
    run.refresh_from_db()
    assert run.state == "succeeded"


def test_a_release_of_a_locked_container_gives_its_worker_up(pool, fake_engine):
    """A worker that waits there for a transfer would be missing for other tenants' releases."""
    mine = hold(pool, fake_engine, "alice")
    assert releases.fence(Assignment.objects.filter(pk=mine.pk))
    OrmQ.objects.all().delete()
    with volumes.locked(mine.held_container):
        releases.finish(mine.pk)
    mine.refresh_from_db()
    assert (mine.state, mine.owner) == (AssignmentState.RELEASING, None)
    assert [one.task["func"] for one in OrmQ.objects.all()] == ["tenants.tasks.finish_release"]
    assert taken("save")
    releases.finish(mine.pk)
    mine.refresh_from_db()
    assert (mine.state, mine.outcome) == (AssignmentState.ENDED, "released")


def test_many_requests_for_a_sync_are_one_run_per_spec_and_direction(pool, fake_engine, settings):
    """A second request joins the same run; a run that has started is not joined, because it may have read earlier
    state."""
    mine = hold(pool, fake_engine, "alice")
    first = syncs.begin("alice", "outward")
    assert [[run.pk for run in syncs.begin("alice", "outward")] for _ in range(5)] == [[first[0].pk]] * 5
    assert syncs.trigger(pool.sync_specs.get(), "outward", "alice") == first
    assert (SyncRun.objects.count(), queued_tasks("tenants.tasks.run_syncs")) == (1, 1)
    SyncRun.objects.update(state="running", owner=processes.current())
    (behind,) = syncs.begin("alice", "outward")
    assert behind.pk != first[0].pk
    assert syncs.begin("alice", "outward") == [behind]
    assert SyncRun.objects.filter(tenant_id=mine.tenant_id).count() == 2
    settings.BOILERHOUSE_MAX_QUEUED_SYNCS_PER_TENANT = 1
    assert syncs.begin("alice", "outward") == [behind]
    with pytest.raises(BudgetExceeded, match="tenant alice has 1 queued syncs"):
        syncs.begin("alice", "inward")
    assert len(syncs.trigger(pool.sync_specs.get(), "both", "alice")) == 2, "an operator's is not held up"


def test_who_joins_writes_nothing(pool, fake_engine):
    """Many requests for one run do not block the database for the saves of other tenants."""
    hold(pool, fake_engine, "alice")
    first = syncs.begin("alice", "both")
    with CaptureQueriesContext(connection) as asked:
        assert syncs.begin("alice", "both") == first
        assert syncs.begin("alice", "inward") == first[1:]
    assert [one["sql"] for one in asked.captured_queries if not one["sql"].startswith("SELECT")] == []
    assert AuditEntry.objects.filter(action="tenant.sync").count() == 1, "what changed nothing is no entry"


def test_one_tenants_many_runs_let_another_wait_for_one_of_them(pool, fake_engine):
    """50 runs of one tenant are queued; another tenant's run is second although it was queued last."""
    spec = pool.sync_specs.get()
    mallory, bob = hold(pool, fake_engine, "mallory"), hold(pool, fake_engine, "bob")
    for _ in range(50):
        syncs._queue(mallory, [(spec, Direction.UPLOAD)], Trigger.MANUAL)
    syncs.run_next()
    (saved,) = syncs._queue(bob, [(spec, Direction.UPLOAD)], Trigger.INTERVAL)
    syncs.run_next()
    saved.refresh_from_db()
    assert saved.state == "succeeded"
    assert SyncRun.objects.filter(tenant_id="mallory", state="succeeded").count() == 1
    (again,) = syncs._queue(bob, [(spec, Direction.UPLOAD)], Trigger.INTERVAL)
    syncs.run_next()
    syncs.run_next()
    again.refresh_from_db()
    assert again.state == "succeeded"
    assert SyncRun.objects.filter(tenant_id="mallory", state="succeeded").count() == 2


def test_a_tenant_with_a_run_under_way_takes_no_second_worker(pool, fake_engine):
    """The messages of its other runs end, and the end of the run sends another."""
    spec = pool.sync_specs.get()
    mallory = hold(pool, fake_engine, "mallory")
    running, _ = (syncs._queue(mallory, [(spec, Direction.UPLOAD)], Trigger.MANUAL)[0] for _ in range(2))
    SyncRun.objects.filter(pk=running.pk).update(state="running", owner=processes.current())
    OrmQ.objects.all().delete()
    syncs.run_next()
    assert (SyncRun.objects.filter(state="queued").count(), queued_tasks("tenants.tasks.run_syncs")) == (1, 0)
    SyncRun.objects.filter(pk=running.pk).update(state="queued")
    syncs.run_next()
    assert (SyncRun.objects.filter(state="queued").count(), queued_tasks("tenants.tasks.run_syncs")) == (1, 1)
