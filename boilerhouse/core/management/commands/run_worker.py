"""One worker: a django-q2 cluster per queue, watched, and restarted when it dies or no longer serves."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from django.conf import settings
from django.db import connections

from boilerhouse.core import canary, clusters, commands
from boilerhouse.core.deployment import check_node, deployment_id
from boilerhouse.core.steps import Steps

STOP_S = 6.0
LOOK_EVERY_S = 1.0


class Command(commands.Command):
    help = "Run a worker for every queue until SIGTERM."

    def handle(self, *args: Any, **options: Any) -> None:
        deployment_id()
        check_node()
        connections.close_all()  # from here on it watches without the database
        canary.clear_dead()
        steps = Steps(shows=False)
        watched = [clusters.Cluster(queue, int(own["workers"])) for queue, own in settings.QUEUES.items()]
        with commands.stopping() as stop:
            for cluster in watched:
                cluster.start()
            while not stop.wait(LOOK_EVERY_S):
                for cluster in watched:
                    steps.attempt(f"watch_{cluster.queue}", partial(_watch, cluster, watched))
            clusters.stop(watched, STOP_S)


def _watch(cluster: clusters.Cluster, all_of_them: list[clusters.Cluster]) -> None:
    now = time.monotonic()
    others_restart = any(one.is_restarting(now) for one in all_of_them if one is not cluster)
    cluster.watch(now, may_restart=not others_restart)
