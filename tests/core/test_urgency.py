"""The web process runs before ordinary ones, unless it is told not to, may not, or has one processor."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

SAYS = """
import json, os, sys, threading, resource, subprocess
os.environ["DJANGO_SETTINGS_MODULE"] = "boilerhouse.settings"
import django; django.setup()
from boilerhouse.core import urgency
if "bound" in sys.argv: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
if "nobody" in sys.argv:
    resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0)); os.setuid(65534)
is_urgent, threads = urgency.be_urgent(), []
one = threading.Thread(target=lambda: threads.append(os.sched_getscheduler(0))); one.start(); one.join()
print(json.dumps([is_urgent, os.sched_getscheduler(0), threads[0]]))
"""


def what_becomes_of_it(tmp_path, *arguments: str, **environment: str) -> list:
    done = subprocess.run(
        [sys.executable, "-c", SAYS, *arguments],
        env={**os.environ, "BOILERHOUSE_DATA_DIR": str(tmp_path), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_the_process_and_its_threads_run_before_ordinary_ones_where_there_are_two_processors(tmp_path):
    is_enough = len(os.sched_getaffinity(0)) > 1
    kind = os.SCHED_RR if is_enough else os.SCHED_OTHER
    assert what_becomes_of_it(tmp_path) == [is_enough, kind, kind]


@pytest.mark.parametrize(("arguments", "environment"), [
    (["bound"], {}), (["nobody"], {}), ([], {"BOILERHOUSE_WEB_REALTIME": "0"}),
])  # fmt: skip
def test_where_it_may_not_all_goes_on_as_before(tmp_path, arguments, environment):
    assert what_becomes_of_it(tmp_path, *arguments, **environment) == [False, os.SCHED_OTHER, os.SCHED_OTHER]
