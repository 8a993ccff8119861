"""New work wakes the workers of its own queue only; the wake-up pipes of dead processes are removed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest
from django.db import transaction

from boilerhouse.core.deployment import data_dir
from boilerhouse.queues import wakeup_pipes
from boilerhouse.queues.broker import Broker


@pytest.fixture
def own_directory(settings, tmp_path):
    settings.BOILERHOUSE_DATA_DIR = str(tmp_path)
    return tmp_path


def test_a_ring_wakes_all_of_its_queue_and_nobody_else(own_directory):
    mine, other, different = (
        wakeup_pipes.WakeupPipe("claim"),
        wakeup_pipes.WakeupPipe("claim"),
        wakeup_pipes.WakeupPipe("pool"),
    )
    wakeup_pipes.notify("claim")
    for bell in (mine, other):
        began = time.monotonic()
        bell.wait(60)
        assert time.monotonic() - began < 30
    began = time.monotonic()
    different.wait(0.2)
    assert time.monotonic() - began >= 0.2


def test_a_ring_before_waiting_is_not_missed_and_a_silenced_one_is_over(own_directory):
    bell = wakeup_pipes.WakeupPipe("claim")
    for _ in range(70_000):  # more than a pipe holds: the ringer never waits
        wakeup_pipes.notify("claim")
    began = time.monotonic()
    bell.wait(60)
    assert time.monotonic() - began < 30
    bell.silence()
    began = time.monotonic()
    bell.wait(0.2)
    assert time.monotonic() - began >= 0.2


def test_bells_of_processes_that_were_killed_are_taken_away(own_directory):
    code = (
        "import os,signal,django; os.environ['DJANGO_SETTINGS_MODULE']='boilerhouse.settings'; django.setup();"
        "from boilerhouse.queues.wakeup_pipes import WakeupPipe; kept = WakeupPipe('claim'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "BOILERHOUSE_DATA_DIR": str(own_directory)})
    assert len(list((data_dir() / "bells").glob("claim.*"))) == 1
    wakeup_pipes.notify("claim")
    assert not list((data_dir() / "bells").glob("claim.*"))


def test_a_message_wakes_its_worker_when_it_is_committed(transactional_db, own_directory, settings):
    settings.QUEUES = {"bell-test": {"workers": 1, "retry": 60}}
    bell, found, looks = wakeup_pipes.WakeupPipe("bell-test"), [], threading.Event()

    def worker():
        from django.db import connection

        while not found:
            bell.silence()
            if messages := Broker.take({"bell-test": 1})[0]:
                found.append((time.monotonic(), messages))
            else:
                looks.set()
                bell.wait(60)
        connection.close()

    thread = threading.Thread(target=worker)
    thread.start()
    assert looks.wait(30)
    time.sleep(0.3)
    with transaction.atomic():
        Broker(list_key="bell-test").enqueue("payload")
        time.sleep(0.3)
        assert not found  # it waits, and there is nothing to see yet
    committed = time.monotonic()
    thread.join(90)
    assert found[0][1][0].payload == "payload"
    assert found[0][0] - committed < 30


def test_one_process_waits_for_several_queues_and_is_woken_by_its_own_threads(own_directory):
    bell = wakeup_pipes.WakeupPipe("claim", "pool")
    for notify in (lambda: wakeup_pipes.notify("claim"), lambda: wakeup_pipes.notify("pool"), bell.notify):
        notify()
        began = time.monotonic()
        bell.wait(60)
        assert time.monotonic() - began < 30
        bell.silence()
