"""The real engine for tests in this process: a deployment of its own, started without web, worker or controller."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from boilerhouse.core.deployment import deployment_id
from pools import feasibility, firewall, host, images, lifecycle, sizing, trials
from pools.models import Container, Pool
from pools.runtime import get_runtime
from pools.runtime.docker import DockerRuntime
from pools.states import ContainerState
from tests.engine_filter import EngineFilter
from tests.make import make_pool, make_workload

SLEEP = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]


class Engine:
    """Starts containers through a filter, and looks into them past it."""

    def __init__(self, filter: EngineFilter) -> None:
        self.filter = filter
        self.runtime = DockerRuntime(filter.url)

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

    def inspect(self, container: Container) -> dict[str, Any]:
        said = docker("inspect", lifecycle.runtime_name(container.pk))
        found: dict[str, Any] = json.loads(said)[0]
        return found

    def names(self) -> list[str]:
        """Of all containers of this deployment."""
        label = f"label={host.DEPLOYMENT_LABEL}={deployment_id()}"
        return docker("ps", "-a", "--filter", label, "--format", "{{.Names}}").split()


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.fixture
def engine(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    images.ensure_example()
    filter = EngineFilter(tmp_path / "engine.sock")
    filter.start()
    engine = Engine(filter)
    for module in (lifecycle, host.network, trials, feasibility):
        monkeypatch.setattr(module, "get_runtime", lambda: engine.runtime)
    yield engine
    filter.change = filter.pretend = None
    if left := engine.names():
        docker("rm", "-f", "-v", *left)
    get_runtime().remove_network(host.network_name())
    firewall.remove(host.bridge_name())
    filter.stop()
