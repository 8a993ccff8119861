"""A real engine for tests in this process: its own deployment, without web, worker and controller."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from boilerhouse.core.deployment import deployment_id
from pools import firewall, host, lifecycle, packet_filter, sizing
from pools.models import Container, Pool
from pools.runtime import get_runtime
from pools.runtime.docker import DockerRuntime
from pools.states import ContainerState
from tests.docker_command import docker
from tests.engine_filter import EngineFilter
from tests.make import make_pool, make_workload
from tests.runtimes import choose_runtime

SLEEP = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]
LISTENING = {
    "command": ["sh", "-c", "mkdir -p /tmp/www; echo mine > /tmp/www/index.html; exec httpd -f -p 8080 -h /tmp/www"],
    "ports": [{"name": "http", "container_port": 8080}],
}
"""A web server."""


class Engine:
    """Starts containers through a filter, and looks into them past it."""

    def __init__(self, filter: EngineFilter, runtime: DockerRuntime) -> None:
        self.filter, self.runtime = filter, runtime

    def start(self, **spec: Any) -> tuple[Container | None, Pool]:
        """Start one container of a new pool of this spec: the container, None if it failed, and the pool."""
        spec = {"command": SLEEP, "ports": [], **spec}
        pool = make_pool(workload=make_workload(**spec), min_size=1, good_version=None)
        sizing.refill(pool.pk)
        row = Container.objects.get(pool=pool, state=ContainerState.STARTING)
        started = lifecycle.start_container(row.pk)
        pool.refresh_from_db()
        row.refresh_from_db()
        if not started:
            lifecycle.destroy_container(row.pk)
        return (row if started else None), pool

    def run(self, container: Container, script: str) -> str:
        done = self.runtime.exec(lifecycle.runtime_name(container.pk), ("sh", "-c", script), 30_000)
        assert done.exit_code == 0, done
        return done.stdout.decode()

    def answer_from(self, container: Container, address: str, port: int) -> str:
        """What the container gets from a server there; empty if nothing answers."""
        return self.run(container, f"echo hi | nc -w 2 {address} {port} 2>/dev/null; true")

    def inspect(self, container: Container) -> dict[str, Any]:
        said = docker("inspect", lifecycle.runtime_name(container.pk))
        found: dict[str, Any] = json.loads(said)[0]
        return found

    def names(self) -> list[str]:
        """Of all containers of this deployment."""
        label = f"label={host.DEPLOYMENT_LABEL}={deployment_id()}"
        return docker("ps", "-a", "--filter", label, "--format", "{{.Names}}").split()


@contextmanager
def real_engine(directory: Path, settings: Any) -> Iterator[Engine]:
    """The deployment's engine, through a filter whose socket is in ``directory``; nothing of ours is left there."""
    filter = EngineFilter(directory / "engine.sock")
    filter.start()
    engine = Engine(filter, choose_runtime(settings, DockerRuntime, filter.url))
    yield engine
    filter.change = filter.pretend = None
    if left := engine.names():
        docker("rm", "-f", "-v", *left)
    get_runtime().remove_network(host.network_name())
    firewall.remove(host.bridge_name())
    filter.stop()


def set_policy(pool: Pool, mode: str, *allow: str) -> None:
    """The pool's containers reach what this policy opens, from now on."""
    Pool.objects.filter(pk=pool.pk).update(egress={"mode": mode, "allow": list(allow)})
    packet_filter.apply()
