"""A thread that loses the database abandons its own work, and none of the other work of its process (P8)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from uuid import UUID

import pytest
from django.db import OperationalError

from boilerhouse.core.models import IdempotencyRecord
from boilerhouse.process import ownership, processes
from boilerhouse.queues.tasks import enqueue, task
from boilerhouse.queues.worker import Worker
from boilerhouse.web import idempotency
from pools import lifecycle
from pools.models import Container
from pools.states import ContainerState
from syncing.models import SyncRun
from syncing.states import Direction, SyncRunState, Trigger
from tenants import preparation, upkeep
from tenants.models import Assignment, Tenant
from tests.make import make_assignment, make_container, make_pool, make_sync_spec
from tests.waiting import eventually

HERE = __name__
QUEUES = {"pool": {"workers": 2, "timeout": 60, "retry": 60}}
holds, goes_on = threading.Event(), threading.Event()

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("data_dir")]


@task
def works(container_id: str) -> None:
    """A claim that owns its container, and waits."""
    assert lifecycle.adopt_ownership(UUID(container_id), ContainerState.STARTING)
    holds.set()
    goes_on.wait(60)


@task
def loses(container_id: str, run_id: str) -> None:
    """A claim that owns its container and a run, and loses the database."""
    assert lifecycle.adopt_ownership(UUID(container_id), ContainerState.STARTING)
    runs = SyncRun.objects.filter(pk=run_id)
    assert runs.transition(SyncRunState.QUEUED, SyncRunState.RUNNING, owner=ownership.take(SyncRun, runs.get().pk))
    raise OperationalError("server closed the connection unexpectedly")


def pending(**over: object) -> Assignment:
    """A claim that is being prepared in a container."""
    return make_assignment(container=make_container(state=ContainerState.CLAIMED), **over)


@pytest.fixture
def periodic_saves(monkeypatch) -> None:
    monkeypatch.setattr(processes, "HEARTBEAT_S", 0.05)


@pytest.fixture
def worker(settings, periodic_saves) -> Iterator[Worker]:
    settings.QUEUES = QUEUES
    settings.QUEUE_LOOK_S = 0.1
    holds.clear()
    goes_on.clear()
    one = Worker(QUEUES)
    one.start()
    yield one
    goes_on.set()
    assert one.stop(20) == []


def test_a_thread_that_loses_the_database_leaves_other_threads_their_rows(worker):
    """All work of the process was taken over a second time, and its syncs were ended."""
    pool = make_pool()
    kept, lost = (make_container(pool, state=ContainerState.STARTING) for _ in range(2))
    mine = pending()
    values = {"tenant_id": "alice", "generation": 1, "direction": Direction.UPLOAD, "trigger": Trigger.INTERVAL}
    first, second = (SyncRun.objects.create(spec=make_sync_spec(pool), container_id=mine.container_ref, **values)
                     for _ in range(2))  # fmt: skip
    enqueue("pool", f"{HERE}.works", kept.pk)
    assert holds.wait(20)
    me = processes.current()
    SyncRun.objects.filter(pk=first.pk).update(state=SyncRunState.RUNNING, owner=me)
    enqueue("pool", f"{HERE}.loses", lost.pk, second.pk)
    eventually(lambda: SyncRun.objects.get(pk=second.pk).state == SyncRunState.RUNNING, 20)
    eventually(lambda: Container.objects.get(pk=lost.pk).owner is None, 20)
    eventually(lambda: SyncRun.objects.get(pk=second.pk).owner is None, 20)

    assert processes.current() == me
    assert me in processes.living()
    assert Container.objects.get(pk=kept.pk).owner == me
    assert [one.pk for one in lifecycle.stuck_containers(lost.state_changed_at.replace(year=9999))] == [lost.pk]
    assert upkeep.bury_dead_runs() == 1
    assert SyncRun.objects.get(pk=first.pk).state == SyncRunState.RUNNING
    assert SyncRun.objects.get(pk=second.pk).state == SyncRunState.FAILED


def test_what_is_given_up_while_the_database_is_away_is_set_free_when_it_is_back(periodic_saves, monkeypatch):
    container = make_container(state=ContainerState.STARTING)
    is_away = threading.Event()

    def fails(*_: object) -> None:
        is_away.set()
        raise OperationalError

    with monkeypatch.context() as away, ownership.unit_of_work():
        assert lifecycle.adopt_ownership(container.pk, ContainerState.STARTING)
        away.setattr(processes, "close_old_connections", fails)
        ownership.give_up()
        is_away.clear()
        assert is_away.wait(20)
        assert Container.objects.get(pk=container.pk).owner == processes.current()
    eventually(lambda: Container.objects.get(pk=container.pk).owner is None, 20)


def test_what_is_taken_again_is_not_set_free(periodic_saves, monkeypatch):
    """Its message was delivered again before the next heartbeat."""
    container = make_container(state=ContainerState.STARTING)
    other = make_container(container.pool, state=ContainerState.STARTING)
    with ownership.unit_of_work():
        for one in (container, other):
            assert lifecycle.adopt_ownership(one.pk, ContainerState.STARTING)
        with monkeypatch.context() as still:
            still.setattr(processes, "_beat_hooks", [])
            ownership.give_up()
            assert lifecycle.adopt_ownership(container.pk, ContainerState.STARTING)
    eventually(lambda: Container.objects.get(pk=other.pk).owner is None, 20)
    assert Container.objects.get(pk=container.pk).owner == processes.current()


def test_a_claim_on_the_hot_path_gives_up_itself_alone(periodic_saves, monkeypatch):
    """A web process serves many claims at once, each in a thread."""
    me = processes.current()
    mine = pending(owner=me)
    Tenant.objects.create(pk="bob")
    other = Assignment.objects.create(tenant_id="bob", pool=mine.pool, generation=1, deadline=mine.deadline, owner=me)
    assignment = Assignment.objects.select_related("container__pool", "version").get(pk=mine.pk)
    assignment.version = assignment.container.version

    class SinkCheck:
        def entered(self, _: int) -> object:
            raise OperationalError

    with pytest.raises(OperationalError):
        preparation.prepare_here(assignment, SinkCheck(), 0.0)
    eventually(lambda: Assignment.objects.get(pk=mine.pk).owner is None, 20)
    assert Assignment.objects.get(pk=other.pk).owner == processes.current() == me


def test_a_key_whose_request_lost_the_database_is_in_flight_no_more(periodic_saves, monkeypatch):
    """A retry with the same key got 409 for as long as the process lived."""
    record = idempotency.Record("0" * 64, ())
    IdempotencyRecord.objects.create(pk=record.id, body="0" * 64, owner=processes.current(), size=1)

    def lost(*_: object, **__: object) -> None:
        raise OperationalError

    with monkeypatch.context() as away:
        away.setattr(type(IdempotencyRecord.objects.all()), "delete", lost)
        with pytest.raises(OperationalError):
            idempotency.abandon(record)
    eventually(lambda: IdempotencyRecord.objects.get(pk=record.id).owner is None, 20)
