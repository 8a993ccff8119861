"""One worker: a django-q2 cluster per queue, watched, and restarted when it dies or no longer serves."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import Any

import structlog
from django.conf import settings
from django.db import DatabaseError, close_old_connections

from boilerhouse.core import canary, commands, processes
from boilerhouse.core.deployment import deployment_id
from boilerhouse.core.tasks import enqueue

log = structlog.get_logger("boilerhouse.worker")

CANARY_EVERY_S, WEDGED_AFTER_S, STOP_S = 4.0, 12.0, 8.0


class Cluster:
    """The process tree of one queue."""

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self.workers = int(dict(settings.QUEUES[queue])["workers"])
        self.process: subprocess.Popen[bytes] | None = None
        self.started = 0.0

    def start(self) -> None:
        environment = {"Q_CLUSTER_NAME": self.queue, "BOILERHOUSE_SUPERVISOR": str(os.getpid())}
        self.process = commands.spawn([str(commands.MANAGE), "run_queue", "--skip-checks"], environment)
        self.started = time.time()

    def is_dead(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def is_wedged(self) -> bool:
        """Nothing is served although a worker is free."""
        silent = time.time() - max(canary.last_song(self.queue), self.started)
        return silent > WEDGED_AFTER_S and canary.busy_workers(self.queue) < self.workers

    def kill(self) -> None:
        if self.process and self.process.poll() is None:
            processes.kill_tree(self.process.pid)
            self.process.wait()


class Command(commands.Command):
    help = "Run a worker for every queue until SIGTERM."

    def handle(self, *args: Any, **options: Any) -> None:
        deployment_id()
        clusters = [Cluster(queue) for queue in settings.QUEUES]
        with commands.stopping() as stop:
            for cluster in clusters:
                cluster.start()
            sung = 0.0
            while not stop.wait(1.0):
                if time.time() - sung > CANARY_EVERY_S:
                    sung = time.time()
                    self._send_canaries(clusters)
                for cluster in clusters:
                    if cluster.is_dead() or cluster.is_wedged():
                        why = "died" if cluster.is_dead() else "does not serve"
                        log.error("queue restarted", queue=cluster.queue, why=why)
                        cluster.kill()
                        cluster.start()
            self._stop(clusters)
        canary.clear()

    def _send_canaries(self, clusters: list[Cluster]) -> None:
        try:
            close_old_connections()
            for cluster in clusters:
                enqueue(cluster.queue, "boilerhouse.core.canary.sing", os.getpid(), cluster.queue)
        except DatabaseError as error:
            log.warning("canary not sent", error=type(error).__name__)
            for cluster in clusters:
                cluster.started = time.time()  # the silence is the database's, not the cluster's

    def _stop(self, clusters: list[Cluster]) -> None:
        """SIGTERM to the masters only: a whole group that gets it hangs (measured)."""
        for cluster in clusters:
            if cluster.process and cluster.process.poll() is None:
                cluster.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_S
        for cluster in clusters:
            if cluster.process:
                try:
                    cluster.process.wait(timeout=max(0.1, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    log.warning("queue killed", queue=cluster.queue)
                    cluster.kill()
