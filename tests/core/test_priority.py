"""The web process runs with raised priority, unless that is disabled, not permitted, or the host has one processor."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

SAYS = """
import json, os, sys, threading, resource, subprocess
os.environ["DJANGO_SETTINGS_MODULE"] = "boilerhouse.settings"
import django; django.setup()
from boilerhouse.process import priority
if "bound" in sys.argv: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
if "nobody" in sys.argv:
    resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0)); os.setuid(65534)
is_urgent, threads = priority.be_urgent(), []
one = threading.Thread(target=lambda: threads.append(os.sched_getscheduler(0))); one.start(); one.join()
print(json.dumps([is_urgent, os.sched_getscheduler(0), threads[0]]))
"""


LIVES = """
import json, os, threading, time
os.environ["DJANGO_SETTINGS_MODULE"] = "boilerhouse.settings"
import django; django.setup()
from boilerhouse.process import priority
priority.be_urgent()
kinds, done, numbers = [], threading.Event(), [0]
def live(begin):
    begin(); numbers.append(threading.get_native_id()); done.wait()
threads = [threading.Thread(target=live, args=(begin,)) for begin in (int, priority.be_ordinary)]
for thread in threads: thread.start()
while len(numbers) < 3: time.sleep(0.01)
watch = priority.Watch()
def judged(judge, *given):
    judge(*given)
    kinds.append([os.sched_getscheduler(number) for number in numbers])
judged(watch.judge, 0.5)
watch = priority.Watch()
for _ in range(20):  # where others are urgent, too, it may not get what it wants at once
    busy_until = time.process_time() + 0.2
    while time.process_time() < busy_until: pass
    watch.look()
    if os.sched_getscheduler(0) == os.SCHED_OTHER: break
judged(int)
priority.be_urgent()  # as at the end of what is ordinary for a while
judged(watch.judge, 0.5)
time.sleep(1)
judged(watch.look)
done.set()
print(json.dumps(kinds))
"""


def what_becomes_of_it(tmp_path, *arguments: str, program: str = SAYS, **environment: str) -> list:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
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


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="With one processor no process is urgent.")
def test_who_computes_most_of_the_time_is_ordinary_until_it_sleeps_again(tmp_path):
    """A flooded web process takes no processor time from the workers (P14)."""
    urgent, ordinary = os.SCHED_RR, os.SCHED_OTHER

    looks = what_becomes_of_it(tmp_path, program=LIVES)

    assert looks == [
        [urgent, urgent, ordinary],  # itself, a thread of it, one that is ordinary anyway
        [ordinary, ordinary, ordinary],
        [ordinary, ordinary, ordinary],
        [urgent, urgent, ordinary],
    ]


def test_who_is_not_urgent_stays_ordinary_whatever_it_computes(tmp_path):
    looks = what_becomes_of_it(tmp_path, program=LIVES, BOILERHOUSE_WEB_REALTIME="0")

    assert looks == [[os.SCHED_OTHER] * 3] * 4
