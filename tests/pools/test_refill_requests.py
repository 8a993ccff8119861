"""Requests to refill a pool join, and none is lost: what was committed before a request is seen by a run after it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pydoc import locate
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from django_q.models import OrmQ

from boilerhouse.core.models import QueueHealth
from boilerhouse.queues import broker, in_progress
from boilerhouse.queues import worker as worker_module
from boilerhouse.queues.broker import Broker
from boilerhouse.queues.tasks import enqueue, joins, task
from boilerhouse.queues.worker import Worker
from pools import firewall, lifecycle, nodes, sizing
from pools.models import Container, Pool
from pools.states import ContainerState
from tenants import claims, releases
from tenants.models import Assignment
from tenants.states import AssignmentState
from tests.make import make_container, make_pool
from tests.waiting import eventually

pytestmark = pytest.mark.django_db(transaction=True)
REFILL = "pools.tasks.refill"
QUEUES = {"fast": {"workers": 3, "timeout": 20, "retry": 60}}
seen: list[tuple[str, int]] = []


@joins
@task
def look(word: str) -> None:
    seen.append((word, QueueHealth.objects.filter(name__startswith=f"{word} ").count()))


def look_taken() -> list[dict[str, Any]]:
    return worker_module._joined(*Broker.take({"fast": 3}))


@pytest.fixture(autouse=True)
def _empty(data_dir, settings):
    settings.QUEUES = {**settings.QUEUES, **QUEUES}
    settings.QUEUE_LOOK_S = 0.1
    seen.clear()


def in_threads(*works: Callable[[], None]) -> None:
    """Run them concurrently. Raises the exception of any of them."""
    raised: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=[work]) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not raised
    assert not any(thread.is_alive() for thread in threads)


def test_one_run_answers_all_messages_that_are_queued_when_it_begins():
    """A backlog of refills, behind starts that held all threads, was worked off one by one."""
    for number in range(20):
        enqueue("fast", f"{__name__}.look", "one" if number % 2 else "other")
    assert [found["args"] for found in look_taken()] == [("other",), ("one",)]
    assert OrmQ.objects.count() == 2, "those of the tasks that were taken"


def test_messages_of_other_tasks_and_arguments_are_all_kept():
    for number in range(6):
        enqueue("fast", f"{__name__}.look", number)
        enqueue("fast", "somewhere.else", "one")
    taken = [found["args"] for found in look_taken()]
    assert taken == [("0",), ("one",), ("1",)]
    assert OrmQ.objects.count() == 12


def test_a_delayed_message_does_not_join():
    """It was asked to run later, when there is something to see that is not there now."""
    enqueue("fast", f"{__name__}.look", "one")
    enqueue("fast", f"{__name__}.look", "one", after_s=60)
    assert len(look_taken()) == 1
    assert OrmQ.objects.count() == 2


def test_a_message_of_a_running_task_is_not_joined_by_a_later_one():
    """The running task may have read its rows already."""
    enqueue("fast", f"{__name__}.look", "one")
    assert len(look_taken()) == 1
    enqueue("fast", f"{__name__}.look", "one")
    assert len(look_taken()) == 1


def test_a_worker_that_is_killed_before_the_run_loses_nothing(monkeypatch):
    """kill -9 after the messages joined: the one that is left is taken again."""
    monkeypatch.setattr(broker, "TAKEN_FOR", broker.NEARLY + timedelta(seconds=0.3))
    for _ in range(5):
        enqueue("fast", f"{__name__}.look", "one")
    assert len(look_taken()) == 1
    time.sleep(0.4)
    assert [found["args"] for found in look_taken()] == [("one",)]


def test_a_database_that_is_lost_as_messages_join_costs_no_task(monkeypatch):
    def fail(*_: object) -> None:
        raise OperationalError("gone")

    monkeypatch.setattr(Broker, "drop", fail)
    for _ in range(5):
        enqueue("fast", f"{__name__}.look", "one")
    assert len(look_taken()) == 1
    assert OrmQ.objects.count() == 5


def test_what_was_committed_with_a_message_is_seen_by_a_run_after_it():
    """Many at once ask while two workers run; each row counts, whichever of the messages joined."""
    workers = [Worker(QUEUES), Worker(QUEUES)]

    def ask(first: int) -> Callable[[], None]:
        def run() -> None:
            for number in range(first, first + 25):
                for word in ("one", "other"):
                    with transaction.atomic():
                        QueueHealth.objects.create(name=f"{word} {number}")
                        enqueue("fast", f"{__name__}.look", word)

        return run

    for worker in workers:
        worker.start()
    try:
        in_threads(*(ask(100 * number) for number in range(4)))
        eventually(lambda: not OrmQ.objects.filter(key="fast").exists(), 30)
    finally:
        for worker in workers:
            assert worker.stop(20) == []
    most = {word: max(count for found, count in seen if found == word) for word in ("one", "other")}
    assert most == {"one": 100, "other": 100}


def test_calls_during_a_run_join_and_the_run_after_it_sees_what_they_saw():
    """At most one successor, and always one: a call after the run has read is not answered by that run."""
    state, read, gate = [0], [], threading.Event()
    has_read = threading.Event()

    @in_progress.joined
    def work(_row: str) -> int:
        read.append(state[0])
        has_read.set()
        gate.wait(20)
        return state[0]

    answers: list[int | None] = []
    threads = [threading.Thread(target=lambda: answers.append(work("pool"))) for _ in range(8)]
    threads[0].start()
    assert has_read.wait(20)
    state[0] = 1
    for thread in threads[1:]:
        thread.start()
    eventually(lambda: len(answers) == 6, 20)
    assert answers == [None] * 6
    gate.set()
    for thread in threads:
        thread.join(20)
    assert read == [0, 1], "one run after the first, for all seven"
    assert work("pool") == 1, "afterwards it runs again"


def test_work_that_fails_lets_the_call_that_waits_run():
    has_begun, gate = threading.Event(), threading.Event()
    calls: list[str] = []

    @in_progress.joined
    def work(_row: str) -> None:
        calls.append("begun")
        if len(calls) == 1:
            has_begun.set()
            gate.wait(20)
            raise OperationalError("gone")

    def first() -> None:
        with pytest.raises(OperationalError):
            work("pool")

    def second() -> None:
        assert has_begun.wait(20)
        threading.Timer(0.2, gate.set).start()
        work("pool")

    in_threads(first, second)
    assert calls == ["begun", "begun"]


def test_many_refills_of_a_pool_at_once_start_what_it_lacks_and_no_more(settings):
    settings.BOILERHOUSE_PARALLEL_CREATES = 20
    pool = make_pool(min_size=8, max_size=8)
    for number in range(8):
        make_container(pool, state=ContainerState.CLAIMED if number < 3 else ContainerState.IDLE)

    def remove(container: Container) -> Callable[[], None]:
        def run() -> None:
            lifecycle.forget(container.pk)
            sizing.refill(pool.pk)

        return run

    in_threads(*map(remove, Container.objects.all()))
    assert Container.objects.filter(state=ContainerState.STARTING).count() == 8


@pytest.fixture
def pool(data_dir, fake_engine, monkeypatch) -> Pool:
    monkeypatch.setattr(firewall, "apply", lambda network: None)
    monkeypatch.setattr(nodes.Host, "ensure_ram_dir", lambda: None)
    (data_dir / "ram").mkdir(exist_ok=True)
    return make_pool(min_size=2, max_size=4)


def work_off() -> Counter[str]:
    """Run the queued tasks as a worker does, until none is left; returns how often each task ran."""
    ran: Counter[str] = Counter()
    while tasks := worker_module._joined(*Broker.take({"claim": 4, "pool": 4, "save": 4})):
        for one in tasks:
            ran[one["func"]] += 1
            function: Any = locate(one["func"])
            function(*one["args"])
            Broker(one["cluster"]).acknowledge(one["ack_id"])
    return ran


@pytest.mark.parametrize("min_idle", [0, 2], ids=["of a fixed size", "with idle ones"])
def test_claims_and_releases_send_few_refills(pool, monkeypatch, min_idle):
    """Each container that was handed out made four refill tasks run; a busy machine spent its time on them."""
    Pool.objects.update(min_idle=min_idle)
    sizing.refill(pool.pk)
    work_off()
    count, steps = 5, []
    monkeypatch.setattr(sizing, "is_off", lambda row, ask=sizing.is_off: steps.append(row.pk) or ask(row))
    ran: Counter[str] = Counter()
    for number in range(count):
        claims.begin(claims.Claim(tenant_id=f"tenant-{number}", pool_id=pool.pk))
        ran += work_off()
        releases.begin(f"tenant-{number}")
        ran += work_off()
    assert Assignment.objects.filter(state=AssignmentState.ENDED).count() == count
    assert Container.objects.idle().count() == 2
    assert ran["pools.tasks.create_container"] == count
    assert ran[REFILL] <= (count if min_idle else 0)
    assert len(steps) <= 3 * count, "after the claim, after the start, after the end"
