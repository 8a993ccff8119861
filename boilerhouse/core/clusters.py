"""The clusters that one ``run_worker`` watches: when one is judged, what ends it, and how it is replaced.

A start has a patience of its own, which doubles with each restart: killing what starts slowly makes the load that it is
slow of. Silence is judged only after the first canary. A cluster that gets no processor time is slow, not wedged.
A replaced cluster's running tasks end by themselves.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
from django.conf import settings

from boilerhouse.core import canary, commands, processes

log = structlog.get_logger("boilerhouse.worker")

WEDGED_AFTER_S = 12.0
"""Silence of a cluster that has a free worker and all the processor time it wants."""
STARVED_AFTER_S = 120.0
"""The same while it waits for the processor, or works."""
START_S, MAX_START_S = 120.0, 960.0
STARVED = 0.3
"""Of the silence: the time that the processes which should serve ran or waited for the processor. Wedged ones sleep."""
ONE_AT_A_TIME_S = 30.0
MAX_DELAY_S = 60.0
LAST_WAIT_S = 1.0
"""For the kernel to end what was killed."""
TICKS = os.sysconf("SC_CLK_TCK")


class Tree:
    """One process tree that serves a queue."""

    _count = 0

    def __init__(self, queue: str, workers: int, start: Callable[[str, str], subprocess.Popen[bytes]]) -> None:
        Tree._count += 1
        self.name = f"{os.getpid()}-{Tree._count}"
        self.workers = workers
        self.started = time.monotonic()
        self.process = start(queue, self.name)
        self._wanted = (self.started, 0.0)
        self._heard = self.started
        self._retired_at = 0.0

    @property
    def has_sung(self) -> bool:
        return canary.last_song(self.name) is not None

    @property
    def is_dead(self) -> bool:
        return self.process.poll() is not None

    def is_wedged(self, now: float) -> bool:
        """Whether it serves nothing although a worker is free and the processor, too."""
        heard = canary.last_song(self.name)
        if heard is None:
            return False
        busy = canary.busy_workers(self.name)
        if heard > self._heard or len(busy) >= self.workers:
            self._heard, self._wanted = now if len(busy) >= self.workers else heard, (now, self._demand(busy))
            return False
        silent = now - self._heard
        if silent <= WEDGED_AFTER_S:
            return False
        since, before = self._wanted
        share = (self._demand(busy) - before) / max(now - since, 0.001)
        return silent > STARVED_AFTER_S or share < STARVED

    def _demand(self, busy: set[int]) -> float:
        """Seconds that its pusher, its monitor and its free workers ran or waited for the processor."""
        serving = {pid for sentinel in processes.children(self.process.pid) for pid in processes.children(sentinel)}
        return sum(map(_ran_or_waited, serving - busy))

    def retire(self) -> None:
        """End all of it but the workers that are in a task, and have nothing spawned again; ``is_done`` says when."""
        self._retired_at = time.monotonic()
        busy = canary.busy_workers(self.name)
        sentinels = processes.children(self.process.pid)
        for pid in (self.process.pid, *sentinels):
            _signal(pid, signal.SIGSTOP)
        for sentinel in sentinels:
            for pid in processes.children(sentinel):
                if pid not in busy:
                    _signal(pid, signal.SIGKILL)

    @property
    def is_done(self) -> bool:
        """Whether a retired tree has no task left that may go on."""
        takes_too_long = time.monotonic() - self._retired_at > float(settings.Q_CLUSTER["timeout"])
        return self.is_dead or takes_too_long or not canary.busy_workers(self.name)

    def kill(self) -> None:
        """SIGKILL to all of it; nothing is waited for."""
        if not self.is_dead:
            processes.kill_tree(self.process.pid)
        canary.clear(self.name)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _ran_or_waited(pid: int) -> float:
    """Seconds on the processor and in line for it; 0 for a process that has ended."""
    try:
        ran, waited, _ = map(int, Path(f"/proc/{pid}/schedstat").read_text().split())
    except (OSError, ValueError):
        return 0.0
    return (ran + waited) / 1e9


def spawn(queue: str, tree: str) -> subprocess.Popen[bytes]:
    """Start the process tree of a queue; ``tree`` names it to its workers."""
    environment = {"Q_CLUSTER_NAME": queue, canary.TREE: tree}
    return commands.spawn([str(commands.MANAGE), "run_queue", "--skip-checks"], environment)


class Cluster:
    """A queue and the tree that serves it now."""

    def __init__(self, queue: str, workers: int, start: Callable[[str, str], subprocess.Popen[bytes]] = spawn) -> None:
        self.queue, self._workers, self._start = queue, workers, start
        self.tree: Tree | None = None
        self.restarts = 0
        """In a row: a cluster that has served for a while begins anew."""
        self._retired: list[Tree] = []
        self._start_after = 0.0

    def start(self) -> None:
        self.tree = Tree(self.queue, self._workers, self._start)

    @property
    def patience_s(self) -> float:
        return float(min(START_S * 2**self.restarts, MAX_START_S))

    def is_restarting(self, now: float) -> bool:
        """Whether a restart is under way that others should wait for."""
        tree = self.tree
        return self.restarts > 0 and tree is not None and not tree.has_sung and now - tree.started < ONE_AT_A_TIME_S

    def fault(self, now: float) -> str:
        """Why the tree has to be replaced; empty if it has not."""
        tree = self.tree
        if tree is None or tree.is_dead:
            return "died"
        if not tree.has_sung:
            return "does not start" if now - tree.started > self.patience_s else ""
        if now - tree.started > self.patience_s:
            self.restarts = 0
        return "does not serve" if tree.is_wedged(now) else ""

    def watch(self, now: float, *, may_restart: bool) -> None:
        """Replace the tree if it has to be, and end retired ones whose tasks are done."""
        for one in [one for one in self._retired if one.is_done]:
            one.kill()
            self._retired.remove(one)
        why = self.fault(now)
        if not why or not may_restart or now < self._start_after:
            return
        self._replace(why)
        self._start_after = now + min(2.0**self.restarts, MAX_DELAY_S)
        self.restarts += 1
        self.start()

    def _replace(self, why: str) -> None:
        log.error("queue restarted", queue=self.queue, why=why, restarts=self.restarts + 1)
        old, self.tree = self.tree, None
        if old is None:
            return
        if not old.is_dead and canary.busy_workers(old.name):
            for earlier in self._retired:
                earlier.kill()
            old.retire()
            self._retired = [old]
        else:
            old.kill()

    def terminate(self) -> None:
        """Ask the tree to finish its tasks and end. SIGTERM to the master only: a whole group that gets it hangs."""
        if self.tree and not self.tree.is_dead:
            self.tree.process.send_signal(signal.SIGTERM)
        for one in self._retired:
            one.kill()

    @property
    def is_running(self) -> bool:
        return self.tree is not None and not self.tree.is_dead


def stop(clusters: Sequence[Cluster], within_s: float) -> None:
    """End all clusters, their tasks first where the time allows; a second later at most all are killed."""
    for cluster in clusters:
        cluster.terminate()
    _wait(clusters, within_s)
    for cluster in clusters:
        if cluster.is_running:
            log.warning("queue killed", queue=cluster.queue)
        if cluster.tree:
            cluster.tree.kill()
    _wait(clusters, LAST_WAIT_S)


def _wait(clusters: Sequence[Cluster], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while any(cluster.is_running for cluster in clusters) and time.monotonic() < deadline:
        time.sleep(0.05)
