"""Long tasks give way to brief ones that a client waits for (P14, ADR 79)."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from boilerhouse.process import giving_way, stalls
from boilerhouse.process.giving_way import give_way, rested_s, task
from boilerhouse.queues.tasks import enqueue
from boilerhouse.queues.worker import Worker
from tests.waiting import eventually

HERE = __name__


@pytest.fixture(autouse=True)
def short_slices(monkeypatch):
    monkeypatch.setattr(giving_way, "SLICE_S", 0.0)


@contextmanager
def brief_one_running(*, is_awaited: bool = True) -> Iterator[threading.Event]:
    """A task of another thread, until the block or the event ends it."""
    begun, ends = threading.Event(), threading.Event()

    def run() -> None:
        with task(is_awaited=is_awaited):
            begun.set()
            ends.wait(60)

    thread = threading.Thread(target=run)
    thread.start()
    begun.wait(60)
    try:
        yield ends
    finally:
        ends.set()
        thread.join()


def rest_while_computing() -> float:
    """How long a task pauses that computes a little."""
    before = rested_s()
    for number in range(200):
        sum(range(number))
        give_way()
    return rested_s() - before


def test_a_long_task_pauses_while_a_brief_one_runs():
    with brief_one_running(), task(is_awaited=False):
        assert rest_while_computing() > 0


def test_a_long_task_that_is_alone_does_not_pause():
    with task(is_awaited=False):
        assert rest_while_computing() == 0


def test_long_tasks_do_not_pause_for_each_other():
    with brief_one_running(is_awaited=False), task(is_awaited=False):
        assert rest_while_computing() == 0


def test_a_pause_ends_with_the_brief_task(monkeypatch):
    monkeypatch.setattr(giving_way, "REST", 10**9)
    monkeypatch.setattr(giving_way, "LONGEST_REST_S", 600.0)
    with brief_one_running() as ends, task(is_awaited=False):
        threading.Timer(0.2, ends.set).start()
        before = rested_s()
        sum(range(1000))
        give_way()
        assert not giving_way._brief
        assert rested_s() > before


def test_a_task_that_a_client_waits_for_does_not_pause_while_it_is_brief():
    with brief_one_running(), task(is_awaited=True):
        assert rest_while_computing() == 0


def test_a_task_that_a_client_waits_for_pauses_when_it_has_computed_for_long(monkeypatch):
    """A release of a hundred thousand files is no reason for another release to wait."""
    monkeypatch.setattr(giving_way, "BRIEF_S", 0.0)
    with brief_one_running(), task(is_awaited=True):
        assert rest_while_computing() > 0


def test_a_long_task_in_the_background_pauses_for_longer_than_one_that_a_client_waits_for(monkeypatch):
    monkeypatch.setattr(giving_way, "BRIEF_S", -1.0)
    asked: list[float] = []
    monkeypatch.setattr(giving_way, "_rest", asked.append)
    monkeypatch.setattr(time, "thread_time", itertools.count(0.0, 0.001).__next__)
    for is_awaited in (True, False):
        with task(is_awaited=is_awaited):
            give_way()
    assert 0 < asked[0] < asked[1]


def test_nobody_pauses_for_a_task_that_waits_for_a_sink_for_long(monkeypatch):
    monkeypatch.setattr(giving_way, "BRIEF_FOR_S", 0.0)
    with brief_one_running(), task(is_awaited=False):
        assert rest_while_computing() == 0


def test_nothing_pauses_outside_tasks_or_while_a_container_is_frozen():
    with brief_one_running():
        assert rest_while_computing() == 0
        with task(is_awaited=False), stalls.quietly():
            assert rest_while_computing() == 0


def test_each_of_many_items_gives_way():
    with brief_one_running(), task(is_awaited=False):
        before = rested_s()
        for _ in range(200):
            stalls.step()
        assert rested_s() > before


begun, gate = threading.Event(), threading.Event()
paused: list[bool] = []


def waits() -> None:
    begun.set()
    gate.wait(30)


def computes() -> None:
    paused.append(rest_while_computing() > 0)


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("queue", "pauses"), [("claim", True), ("save", True), ("pool", False)])
def test_a_sync_pauses_for_a_claim_and_a_release(data_dir: Path, settings, queue, pauses):
    queues = {name: {"workers": 1, "timeout": 50, "retry": 60} for name in ("claim", "save", "pool", "sync")}
    settings.QUEUES, settings.QUEUE_LOOK_S = queues, 0.1
    paused.clear()
    gate.clear()
    begun.clear()
    worker = Worker(queues)
    enqueue(queue, f"{HERE}.waits")
    worker.start()
    try:
        assert begun.wait(30)
        enqueue("sync", f"{HERE}.computes")
        eventually(lambda: paused == [pauses], 20)
    finally:
        gate.set()
        assert worker.stop(20) == []
