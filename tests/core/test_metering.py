"""Counters of several processes are added up, kept when a process dies, and never counted twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

COUNTING = """
import os, signal, sys
from boilerhouse.telemetry import metering
asked = metering.counter("tests_total", "Of tests.", "who")
took = metering.histogram("tests_seconds", "Of tests.")
open_ = metering.gauge("tests_open", "Of tests.")
def count():
    asked.labels("a").inc(2)
    took.observe(0.3)
    open_.inc()
"""


@pytest.fixture
def run(tmp_path: Path):
    """Run lines in a separate process on the test's data directory."""

    def run(lines: str, code: int = 0) -> str:
        environment = {
            **os.environ,
            "BOILERHOUSE_DATA_DIR": str(tmp_path),
            "DJANGO_SETTINGS_MODULE": "boilerhouse.settings",
        }
        done = subprocess.run(
            [sys.executable, "-c", COUNTING + lines], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
        return done.stdout

    return run


SHOW = """
import json
print(json.dumps({s.name: s.value for m in metering.ProcessesCollector().collect() for s in m.samples
    if not s.labels or s.labels.get("le") == "+Inf" or "who" in s.labels}))
"""


def test_what_several_processes_count_is_added_up_also_what_forks_of_them_count(run):
    run("count()")
    run("count()\nif os.fork() == 0:\n    count()\n    os._exit(0)\nos.wait()")
    found = json.loads(run("count()" + SHOW))

    assert found["boilerhouse_tests_total"] == 8
    assert found["boilerhouse_tests_seconds_count"] == found["boilerhouse_tests_seconds_bucket"] == 4
    assert found["boilerhouse_tests_open"] == 1, "only of those who live"


def test_a_killed_process_leaves_its_counts_and_folding_keeps_them(run, tmp_path):
    for _ in range(3):
        run("count()\nos.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL)
    before = json.loads(run(SHOW))
    files = len(list((tmp_path / "metrics").glob("*")))
    run("count()\nmetering.fold()")
    after = json.loads(run("metering.fold()" + SHOW))

    assert before["boilerhouse_tests_total"] == 6
    assert after["boilerhouse_tests_total"] == 8
    assert after["boilerhouse_tests_seconds_count"] == 4
    assert abs(after["boilerhouse_tests_seconds_sum"] - 1.2) < 1e-9
    assert len(list((tmp_path / "metrics").glob("*"))) < files


def test_a_process_that_counts_while_others_fold_loses_nothing(run):
    children = "\n".join(["for _ in range(4):", "    if os.fork() == 0:", "        for n in range(300):", "            asked.labels('a').inc()", "            n % 50 or metering.fold()", "        os._exit(0)", "for _ in range(4):", "    os.wait()"])  # fmt: skip
    run(children)
    assert json.loads(run(SHOW))["boilerhouse_tests_total"] == 1200


def test_a_lock_that_somebody_keeps_is_not_waited_for_for_ever(run):
    """The holder of the lock may be stopped; a scrape reports that instead of blocking a thread for ever."""
    said = run("""
import fcntl
from boilerhouse.core.errors import Unavailable
count()
metering.LOCKED_S = 0.1
held = open(metering.directory / "lock", "a")
fcntl.flock(held, fcntl.LOCK_EX)
try:
    list(metering.ProcessesCollector().collect())
except Unavailable as error:
    print(error.detail)
fcntl.flock(held, fcntl.LOCK_SH)
print(len(list(metering.ProcessesCollector().collect())) > 0)
""")
    assert "it holds" in said
    assert said.endswith("True\n"), "scrapes do not wait for each other"
