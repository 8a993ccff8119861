"""Run the controller until SIGTERM. Several may run; one leads."""

from __future__ import annotations

from typing import Any

from boilerhouse.controller import node_watch
from boilerhouse.controller.controller import Controller, release_leadership
from boilerhouse.core.deployment import check_node, deployment_id
from boilerhouse.process import commands, garbage_collection, pids, processes


class Command(commands.Command):
    help = "Run a controller until SIGTERM: refill pools, serve waiting claims, retry, take over from dead processes."

    def handle(self, *args: Any, **options: Any) -> None:
        processes.describe("controller")
        deployment_id()
        check_node()
        garbage_collection.tune()
        with pids.stopping() as stop:
            controller = Controller(stop)
            while not stop.wait(controller.interval_s):
                controller.tick()
        release_leadership()
        node_watch.release()
        processes.leave()
