"""One django-q2 cluster whose every process dies with the one above it. Started by ``run_worker``."""

from __future__ import annotations

import os
import time
from importlib import import_module
from typing import Any

from django.apps import apps
from django.core.management.base import BaseCommand
from django.utils.module_loading import module_has_submodule
from django_q.cluster import Cluster

from boilerhouse.core import collector, processes
from boilerhouse.core.commands import die_with_parent


def _nothing() -> None:
    pass


class Command(BaseCommand):
    help = "Run the queue cluster that Q_CLUSTER_NAME names. run_worker starts it; do not run it yourself."

    def handle(self, *args: Any, **options: Any) -> None:
        processes.describe("worker")
        # django-q2 leaves its sentinel and workers behind when its master is killed (measured).
        os.register_at_fork(after_in_child=die_with_parent)
        for app in apps.get_app_configs():  # before the fork: no task waits for an import inside its transaction
            if module_has_submodule(app.module, "tasks"):
                tasks = import_module(f"{app.name}.tasks")
                getattr(tasks, "before_fork", _nothing)()
        collector.calm()
        cluster = Cluster()
        cluster.start()
        while not cluster.has_stopped and cluster.sentinel.is_alive():
            time.sleep(0.5)
