"""A process's row exists as long as the rows that it owns, whatever is rolled back or deleted in between."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from django.db import transaction

from boilerhouse.core.models import Process
from boilerhouse.process import pids, processes


@pytest.mark.django_db(transaction=True)
def test_a_rollback_of_the_first_use_does_not_make_the_process_dead_for_ever():
    with pytest.raises(RuntimeError), transaction.atomic():
        first = processes.current()
        raise RuntimeError
    assert not Process.objects.filter(pk=first).exists()
    assert processes.current() == first
    assert first in processes.living()


@pytest.mark.django_db(transaction=True)
def test_a_row_that_is_lost_is_noticed_by_the_heartbeat_and_written_again(monkeypatch):
    monkeypatch.setattr(processes, "HEARTBEAT_S", 0.05)
    first = processes.current()
    Process.objects.all().delete()
    give_up = time.monotonic() + 30
    while processes.current() != first or first not in processes.living():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def test_a_process_that_ends_while_its_children_are_looked_up_has_none(monkeypatch):
    """A save failed with "/proc/24197/task: No such file" when a process in rclone's sandbox ended at that moment
    (P13)."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
    monkeypatch.setattr(Path, "is_dir", lambda _: True)  # as it was a moment ago
    assert pids.descendants(process.pid) == []
