"""F3: writers of several threads take turns; nobody meets "database is locked".

On SQLite the row lock is the gate: BEGIN IMMEDIATE in flock's order.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest
from django.db import connection, transaction
from django.utils import timezone

from boilerhouse.core.models import Lease
from boilerhouse.core.sqlite_gate import patience
from tests.api_calls import problem


def test_many_writers_lose_no_update(transactional_db):
    Lease.objects.create(name="counter", expires_at=timezone.now())
    errors = []

    def write() -> None:
        try:
            for _ in range(50):
                with transaction.atomic():
                    lease = Lease.objects.select_for_update().get(name="counter")
                    Lease.objects.filter(pk=lease.pk).update(
                        expires_at=lease.expires_at + timezone.timedelta(seconds=1)
                    )
        except Exception as error:
            errors.append(error)
        finally:
            connection.close()

    before = Lease.objects.get().expires_at
    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not errors
    assert (Lease.objects.get().expires_at - before).total_seconds() == 400


HOLDER = """
import fcntl, os, sys, time
fcntl.flock(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT), fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def stuck(tmp_path):
    """The gate of a database with a stopped writer, and that writer."""
    path = tmp_path / "stuck.gate"
    with subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        yield path, holder
        holder.kill()


def test_nobody_waits_longer_than_its_time_for_a_writer_that_is_stuck(stuck):
    """Each waiting thread has its own time limit; the order of the others is unchanged."""
    path, holder = stuck
    took: dict[float, float] = {}
    entered = []

    def wait(within_s: float) -> None:
        descriptor, began = os.open(path, os.O_RDWR), time.monotonic()
        if patience.take(descriptor, within_s):
            entered.append(within_s)
        took[within_s] = time.monotonic() - began
        os.close(descriptor)

    waits = [0.0, 0.5, 1.0, 600.0]
    threads = [threading.Thread(target=wait, args=(one,)) for one in waits]
    for thread in threads:
        thread.start()
    for thread in threads[:-1]:
        thread.join(60)
    assert sorted(took) == waits[:-1]
    assert all(took[one] >= one for one in took)
    assert not entered
    holder.kill()
    threads[-1].join(60)
    assert entered == [600.0]


@pytest.mark.skipif(connection.vendor != "sqlite", reason="PostgreSQL has no gate")
def test_a_request_behind_a_writer_that_is_stuck_is_refused_in_words(transactional_db, call, monkeypatch):
    """The write was not answered. Reads continue, nothing has changed, and the next write succeeds when the writer
    is gone."""
    body = {"name": "later", "role": "viewer"}
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "timeout", 0.2)
    gate = f"{connection.settings_dict['NAME']}.gate"
    with subprocess.Popen([sys.executable, "-c", HOLDER, gate], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        try:
            answer = call("POST", "api-keys", body)
            assert problem(answer, 503, "database_busy")["detail"].startswith("The database is locked")
            assert answer["Retry-After"] == "2"
            assert "later" not in call("GET", "api-keys").content.decode()
        finally:
            holder.kill()
    assert call("POST", "api-keys", body).status_code == 201
