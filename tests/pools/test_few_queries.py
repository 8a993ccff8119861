"""What every start, release and second does makes no query and no call to the engine that it does not need."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from boilerhouse.controller import controller
from boilerhouse.core.models import Process
from boilerhouse.process import ownership, processes
from pools import firewall, lifecycle, sizing
from pools.models import Container
from pools.runtime.base import Network
from pools.states import ContainerState
from tenants import releases
from tests.fake_engine_rows import hold
from tests.make import make_container, make_pool
from tests.task_queue import queued_tasks


@pytest.fixture(autouse=True)
def _deployment(data_dir):
    pass


def queries_of(work: Callable[[], object]) -> list[str]:
    with CaptureQueriesContext(
        connection,
    ) as asked:
        work()
    return [one["sql"] for one in asked.captured_queries]


@pytest.mark.django_db(transaction=True)  # this process's row counts as written when it is committed
def test_a_free_row_is_adopted_with_one_query_and_one_of_the_dead_as_before():
    processes.current()
    free, mine = make_container(), make_container(owner=processes.current())
    dead, held = make_container(owner=uuid4()), make_container(owner=processes.current())
    for row in (free, mine):
        asked = queries_of(lambda row=row: ownership.adopt(Container.objects.all(), row.pk))
        assert len(asked) == 1, asked
    assert ownership.adopt(Container.objects.all(), dead.pk)
    assert set(Container.objects.values_list("owner", flat=True)) == {processes.current()}

    another = Process.objects.create(kind="worker", pid_space="another", boot_id="another", pid=1, pid_started=1)
    Container.objects.filter(pk=held.pk).update(owner=another.pk)
    assert not ownership.adopt(Container.objects.all(), held.pk)
    assert Container.objects.get(pk=held.pk).owner == another.pk
    assert not ownership.adopt(Container.objects.filter(state=ContainerState.FAILED), free.pk), "not one of the rows"


def test_the_controller_reads_all_pools_at_once():
    """It asked three times for each pool, every second."""
    for number in range(4):
        make_container(make_pool(min_size=1 + number % 2))
    asked = queries_of(lambda: [is_off() for _, is_off in sizing.look()])
    assert len(asked) == 2, asked
    assert [is_off() for _, is_off in sizing.look()] == [sizing.is_off(pool) for pool, _ in sizing.look()]
    assert controller.fill_pools() == queued_tasks("pools.tasks.refill") == 2


def test_the_packet_filter_is_computed_from_two_queries(monkeypatch):
    """Every start computes it for all containers."""
    network = Network("net", "bh0", "10.99.0.0/16", "10.99.0.1")
    for number in range(5):
        make_container(address=f"10.99.0.{number + 2}")
    asked = queries_of(lambda: firewall._guarded(firewall._rows(), network))
    assert len(asked) <= 3, asked


def test_a_release_looks_once_at_what_it_has_stopped(fake_engine, monkeypatch):
    assignment = hold(make_pool(), fake_engine, "alice")
    looks = []
    inspect = fake_engine.inspect
    monkeypatch.setattr(
        fake_engine, "inspect", lambda name, *more, **less: looks.append(name) or inspect(name, *more, **less)
    )
    releases._stop(assignment, lifecycle.runtime_name(assignment.held_container))
    assert len(looks) == 1
    assert not inspect(looks[0]).is_running
