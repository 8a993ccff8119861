"""The watch over queues: what starts slowly is not killed, what is wedged is replaced, what works goes on (B44, F8).

Real processes, with the watch's own times shortened; the same with a whole deployment and a quarter of a processor is in
``tests/stack/test_steadiness.py``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.db import OperationalError
from django_q.signing import SignedPackage

from boilerhouse.core import canary, clusters, processes
from boilerhouse.core.broker import Broker
from boilerhouse.core.clusters import Cluster
from boilerhouse.core.models import QueueHealth
from boilerhouse.dashboard.supervisor import Supervisor
from tests.stack.conftest import eventually

SLEEPS = "import time; time.sleep(600)"
ENDS = "pass"
# A master with a sentinel with two workers, as django-q2 has them; the sentinel says who they are.
IDLES, SPINS = "import time; time.sleep(600)", "while True: pass"
TREE = """
import subprocess, sys, time
if len(sys.argv) == 2:
    subprocess.Popen([sys.executable, "-c", sys.argv[1], "sentinel", sys.argv[1]]).wait()
else:
    for _ in range(2):
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    time.sleep(600)
"""


@pytest.fixture
def started(data_dir: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    made: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        made.append(subprocess.Popen([sys.executable, "-c", *arguments], start_new_session=True))
        return made[-1]

    yield start
    for process in made:
        processes.kill_tree(process.pid)
        process.wait()


def cluster_of(started, *arguments: str, workers: int = 2) -> Cluster:
    made = Cluster("pool", workers, lambda _queue, _tree: started(*arguments))
    made.start()
    return made


def sing(cluster: Cluster) -> None:
    assert cluster.tree
    canary.sing(cluster.tree.name, cluster.queue)


def test_a_cluster_that_starts_slowly_has_its_own_patience_that_doubles(started):
    """B44: the silence of a start counted, so that each restart made the load it died of."""
    slow = cluster_of(started, SLEEPS)
    first = slow.tree
    for passed in (13, 60, 119):
        slow.watch(first.started + passed, may_restart=True)
    assert slow.tree is first
    slow.watch(first.started + 121, may_restart=True)
    second = slow.tree
    assert second is not first
    assert slow.patience_s == 240
    slow.watch(second.started + 239, may_restart=True)
    assert slow.tree is second
    for _ in range(9):
        slow.restarts += 1
    assert slow.patience_s == clusters.MAX_START_S


def test_a_cluster_that_dies_at_once_is_started_less_and_less_often(started):
    """B44: nothing restarts in a loop."""
    starts: list[str] = []

    def start(_queue: str, tree: str) -> subprocess.Popen[bytes]:
        starts.append(tree)
        process = started(ENDS)
        process.wait()
        return process

    dying = Cluster("pool", 2, start)
    dying.start()
    now = time.monotonic()
    for second in range(100):
        dying.watch(now + second, may_restart=True)
    assert 4 < len(starts) < 12


def test_a_wedged_cluster_is_replaced_and_one_that_lacks_the_processor_is_not(started, monkeypatch, db):
    """F8: a free worker and a busy machine are no wedge; sleep without a song is one."""
    monkeypatch.setattr(clusters, "WEDGED_AFTER_S", 1.0)
    monkeypatch.setattr(clusters, "STARVED_AFTER_S", 30.0)
    wedged, works = (
        cluster_of(started, TREE, TREE),
        cluster_of(started, TREE.replace(IDLES, SPINS), TREE.replace(IDLES, SPINS)),
    )
    for one in (wedged, works):
        eventually(lambda one=one: len(processes.descendants(one.tree.process.pid)) == 3, 20)
    time.sleep(2)  # what an interpreter's start takes is no demand of theirs
    for one in (wedged, works):
        sing(one)
        one.watch(time.monotonic(), may_restart=True)
    before = wedged.tree, works.tree
    eventually(lambda: wedged.watch(time.monotonic(), may_restart=True) or wedged.tree is not before[0], 20, 0.1)
    for _ in range(10):
        works.watch(time.monotonic(), may_restart=True)
        time.sleep(0.1)
    assert works.tree is before[1]
    works.watch(time.monotonic() + 40, may_restart=True)
    assert works.tree is not before[1], "not for ever: it may spin without serving"


def test_a_cluster_whose_workers_are_all_in_tasks_is_slow_and_not_wedged(started, monkeypatch, db):
    """F8: and it has as long again when one comes free."""
    monkeypatch.setattr(clusters, "WEDGED_AFTER_S", 1.0)
    full = cluster_of(started, SLEEPS, workers=1)
    sing(full)
    tree = full.tree
    busy = canary.directory(tree.name) / f"pool.busy.{os.getpid()}"
    busy.touch()
    full.watch(time.monotonic() + 500, may_restart=True)
    assert full.tree is tree
    busy.unlink()
    full.watch(time.monotonic() + 500.5, may_restart=True)
    assert full.tree is tree
    full.watch(time.monotonic() + 502, may_restart=True)
    assert full.tree is not tree


def test_running_tasks_of_a_wedged_cluster_go_on_beside_its_successor(started, monkeypatch, db):
    """F8: one free worker got the other workers' saves killed."""
    monkeypatch.setattr(clusters, "WEDGED_AFTER_S", 0.5)
    cluster = cluster_of(started, TREE, TREE)
    old = cluster.tree
    workers = eventually(lambda: [w for s in processes.children(old.process.pid) for w in processes.children(s)], 20)
    eventually(lambda: len(processes.descendants(old.process.pid)) == 3, 20)
    workers = [w for s in processes.children(old.process.pid) for w in processes.children(s)]
    mark = canary.directory(old.name) / f"pool.busy.{workers[0]}"
    mark.touch()
    sing(cluster)
    eventually(lambda: cluster.watch(time.monotonic(), may_restart=True) or cluster.tree is not old, 30, 0.2)
    assert processes.pid_started(workers[0]) is not None, "it is in a task"
    eventually(lambda: processes.pid_started(workers[1]) is None, 10)
    cluster.watch(time.monotonic(), may_restart=True)
    assert processes.pid_started(workers[0]) is not None
    mark.unlink()
    cluster.watch(time.monotonic(), may_restart=True)
    eventually(lambda: processes.pid_started(workers[0]) is None, 10)
    assert not (canary.directory(old.name) / "canary").exists()


def test_a_restart_waits_for_another_one(started):
    """B44: four interpreters that start at once make the load that makes them slow."""
    first, second = cluster_of(started, SLEEPS), cluster_of(started, SLEEPS)
    now = first.tree.started + 121
    first.watch(now, may_restart=not second.is_restarting(now))
    assert first.is_restarting(time.monotonic())
    assert not first.is_restarting(first.tree.started + clusters.ONE_AT_A_TIME_S + 1)
    tree = second.tree
    second.watch(now, may_restart=not first.is_restarting(time.monotonic()))
    assert second.tree is tree


def test_a_canary_belongs_to_one_cluster(data_dir, transactional_db, monkeypatch):
    """F8: a shared queue's worker, on another machine or here, sang for a cluster that was wedged."""
    monkeypatch.setenv(canary.TREE, "1-1")
    mine = Broker("pool")
    [(acknowledge, text)] = mine.dequeue()
    task = SignedPackage.loads(text)
    assert not acknowledge
    assert task["args"] == ("1-1", "pool")
    assert mine.dequeue() == [], "one in four seconds"
    canary.sing(*task["args"])
    assert canary.last_song("1-1") is not None
    assert canary.last_song("1-2") is None
    assert QueueHealth.objects.get().name == "pool"
    monkeypatch.delenv(canary.TREE)
    assert Broker("pool").dequeue() == []


def test_a_database_that_is_away_is_not_the_clusters_silence(data_dir, transactional_db, monkeypatch):
    """F8: canaries go on, and the pusher is there when the database comes back."""

    def lost(_: object) -> None:
        raise OperationalError

    monkeypatch.setenv(canary.TREE, "1-1")
    monkeypatch.setattr(Broker, "_take", lost)
    assert len(Broker("pool").dequeue()) == 1
    monkeypatch.setattr(canary, "current", lambda: lost(None))
    canary.sing("1-1", "pool")
    assert canary.last_song("1-1") is not None


def test_files_of_supervisors_that_were_killed_are_removed(data_dir):
    """B44: run directories pile up otherwise."""
    for name in (f"{os.getpid()}-1", "4194304-1", "odd"):
        canary.directory(name)
    canary.clear_dead()
    assert [path.name for path in (data_dir / "run").iterdir()] == [f"{os.getpid()}-1"]


def test_the_supervisor_ends_what_ignores_its_signals_within_its_bound(started, monkeypatch):
    """C: ``up`` stops in ten seconds, hung children and their children included."""
    from boilerhouse.core.management.commands import run_worker
    from boilerhouse.dashboard import supervisor

    assert supervisor.STOP_S + supervisor.LAST_WAIT_S < 10
    assert run_worker.STOP_S + clusters.LAST_WAIT_S < supervisor.STOP_S, (
        "a worker's own children end before it is killed"
    )
    monkeypatch.setattr(supervisor, "STOP_S", 0.5)
    deaf = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "time.sleep(600)"
    )
    everything = Supervisor()
    for number in range(4):
        everything.add(str(number), lambda: started(deaf))
    for child in everything.children:
        everything._start(child)
    pids = [child.process.pid for child in everything.children if child.process]
    eventually(lambda: all(processes.children(pid) for pid in pids), 30)
    everyone = [one for pid in pids for one in (pid, *processes.descendants(pid))]
    began = time.monotonic()
    everything.stop()
    assert time.monotonic() - began < 5 * (0.5 + supervisor.LAST_WAIT_S)
    eventually(lambda: all(processes.pid_started(pid) is None for pid in everyone), 10)


def test_a_child_that_cannot_be_started_holds_up_no_other(started, monkeypatch):
    """O1: ``up`` ended when a fork failed once."""
    from boilerhouse.dashboard import supervisor

    monkeypatch.setattr(supervisor, "START_AGAIN_S", 0.0)
    tries = []

    def start() -> subprocess.Popen[bytes]:
        tries.append(1)
        if len(tries) == 1:
            raise OSError(11, "Resource temporarily unavailable")
        return started(SLEEPS)

    everything = Supervisor()
    everything.add("one", start)
    [child] = everything.children
    everything._start(child)
    assert not child.is_running
    everything._look_after(child)
    assert child.is_running


@pytest.mark.parametrize(
    ("script", "age_s", "pauses"),
    [
        ("raise SystemExit(1)", 20, [1, 2, 3]),
        ("raise SystemExit(1)", 100, [0, 0, 0]),
        ("import os; os.kill(os.getpid(), 9)", 20, [0, 0, 0]),
        ("import os; os.kill(os.getpid(), 9)", 1, [1, 2, 3]),
    ],
)
def test_a_process_that_fails_while_it_starts_is_started_less_and_less_often(started, script, age_s, pauses):
    """B44, O1: under load a start that fails takes longer than five seconds, and was tried again at once, for ever."""
    everything = Supervisor()
    everything.add("controller", lambda: started(script))
    [child] = everything.children
    found = []
    for _ in pauses:
        everything._start(child)
        child.process.wait()
        child.started -= age_s
        everything._look_after(child)
        found.append(max(0, round(child.start_after - time.monotonic())))
        child.start_after = 0.0
    assert found == pauses
