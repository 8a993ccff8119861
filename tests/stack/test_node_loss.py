"""Nodes that are cut off, killed or hung, with real fences, containers and saves: never two that run for one tenant."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from boilerhouse.operations.supervisor import free_port
from tests.cable import Cable
from tests.s3 import S3Server
from tests.stack.conftest import ROOT
from tests.stack.machines import Machine
from tests.stack.two_nodes import Both, SecondNode, engine
from tests.waiting import eventually

pytestmark = [
    pytest.mark.postgresql,
    pytest.mark.skipif("DATABASE_URL" not in os.environ, reason="nodes share a database server"),
]
LOST_WITHIN_S = 45
"""A lease, and the leader's look."""
WRITER = "while :; do echo x >> /state/beats; sleep 0.02; done"


class Fenced(Both):
    """Both nodes with a fence each, and a cable between each of them and the database."""

    def __init__(self, machine: Machine, directory: Path) -> None:
        self.direct = machine.environment["DATABASE_URL"]
        self.cables = [self._cable(), self._cable()]
        machine.environment["DATABASE_URL"] = self._by(self.cables[0])
        stack = machine.start()
        second = SecondNode(machine, directory / "second")
        second.manage("join", stack.base, "--token", machine.manage("nodes", "token").strip())
        second.environment["DATABASE_URL"] = self._by(self.cables[1])
        super().__init__(machine, stack, second)
        self.fences: dict[str, subprocess.Popen[bytes]] = {}
        self.started_at: dict[str, datetime] = {}
        self.log = directory / "fences.log"

    def _cable(self) -> Cable:
        url = urlsplit(self.direct)
        return Cable(url.hostname or "127.0.0.1", url.port or 5432)

    def _by(self, cable: Cable) -> str:
        url = urlsplit(self.direct)
        where = f"{url.netloc.rpartition('@')[0]}@127.0.0.1:{cable.port}"
        return url._replace(netloc=where).geturl()

    def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        by_cable, self.machine.environment["DATABASE_URL"] = self.machine.environment["DATABASE_URL"], self.direct
        try:
            return super().rows(statement, *values)
        finally:
            self.machine.environment["DATABASE_URL"] = by_cable

    def start_fence(self, node: str) -> None:
        environment = self.second.environment if node == self.second.id else self.machine.environment
        environment = environment | {"BOILERHOUSE_FENCE_ADDRESS": f"127.0.0.1:{free_port()}"}
        self.started_at[node] = datetime.now(UTC)
        with self.log.open("ab") as output:
            self.fences[node] = subprocess.Popen(
                [sys.executable, str(ROOT / "manage.py"), "run_fence", "--skip-checks"],
                cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip

    def is_fenced(self, node: str) -> bool:
        """Its newest fence has renewed the lease, and its guard is the only one."""
        [(is_renewed,)] = self.rows("SELECT leased_at > %s FROM core_node WHERE id = %s", self.started_at[node], node)
        command = ["pgrep", "-fc", f"guard.py .*{node}"]
        guards = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        return bool(is_renewed) and guards == "1"

    def both_know(self) -> bool:
        """Each fence has its lease, and counts the other."""
        rows = self.rows("SELECT fence_peers FROM core_node WHERE leased_at > now() - interval '4 s'")
        return sorted(peers for [peers] in rows) == sorted([[self.first], [self.second.id]])

    def state_of(self, node: str) -> tuple[str, int]:
        [(state, epoch)] = self.rows("SELECT state, epoch FROM core_node WHERE id = %s", node)
        return state, epoch

    def beats(self, container: str, node: str) -> int:
        """How often the program in it has got its turn."""
        [beats] = (self.data_of(node) / "containers" / container).rglob("state/beats")
        return beats.stat().st_size

    def stands_still(self, container: str, node: str) -> bool:
        before = self.beats(container, node)
        time.sleep(0.3)
        return self.beats(container, node) == before

    def events(self, kind: str) -> int:
        return int(self.rows("SELECT count(*) FROM core_event WHERE type = %s", kind)[0][0])

    def end(self) -> None:
        for cable in self.cables:
            cable.mend()
        for fence in self.fences.values():
            fence.send_signal(signal.SIGCONT)
            fence.terminate()
            fence.wait(30)


@pytest.fixture
def both(machine: Machine, tmp_path: Path) -> Iterator[Fenced]:
    made = Fenced(machine, tmp_path)
    try:
        yield made
    finally:
        made.end()
        machine.kill()
        made.second.stop()
        made.second.manage("purge", "--yes")
        for cable in made.cables:
            cable.close()
        machine.environment["DATABASE_URL"] = made.direct


@pytest.fixture
def pool(both: Fenced, sink_server: S3Server) -> str:
    """It has a warm container on each node, and both nodes have their leases."""
    pool = both.stack.make_pool(sink=sink_server.json("loss/${tenantId}/"), warm=1, maxSize=8)
    both.second.place_one(pool)
    both.second.start("worker")
    for node in (both.first, both.second.id):
        both.start_fence(node)
    eventually(lambda: both.idle_at(both.second.id) and both.idle_at(both.first), 40)
    eventually(both.both_know, 40)
    return pool


@pytest.fixture
def there(both: Fenced, pool: str) -> str:
    """The tenant with a container on the second node: it is saved once, and works on."""
    here, there, held = both.claim_one_of_each(pool)
    both.held, both.here = held, here
    assert both.stack.call("POST", f"tenants/{there}/sync", {"direction": "outward"}).status_code == 202
    eventually(lambda: ("manual", "succeeded") in both.saves(there), 40)
    for container in held.values():
        engine("exec", "-d", f"bh-{container}", "sh", "-c", WRITER)
    return there


def comes_back_elsewhere(both: Fenced, tenant: str, pool: str) -> None:
    """With its last save, on the first node, while its old container stands still."""
    old = both.held[tenant]
    eventually(lambda: both.last(tenant) == ("ended", "node_lost"), LOST_WITHIN_S)
    beats = both.beats(old, both.second.id)
    assert both.stands_still(old, both.second.id), "no two run at once"
    both.comes_back(tenant, pool)
    [(again,)] = both.rows(
        "SELECT container_ref FROM tenants_assignment WHERE tenant_id = %s AND state = 'assigned'", tenant
    )
    assert both.node_of(str(again)) == both.first
    assert both.beats(old, both.second.id) == beats


def returns_clean(both: Fenced, container: str) -> None:
    """Its old container is gone without having run again; what was in it is kept."""
    beats = both.beats(container, both.second.id)
    eventually(lambda: both.state_of(both.second.id) == ("active", 1), 60)
    assert engine("ps", "-aq", "--filter", f"name=bh-{container}") == []
    assert both.beats(container, both.second.id) == beats
    eventually(both.both_know, 30)


def test_a_node_cut_off_stops_before_its_tenant_goes_on_elsewhere(both, there, pool):
    """P1, P16: and after its return it removes its container, and keeps what was not saved."""
    second, old = both.second, both.held[there]
    both.cables[1].cut()
    comes_back_elsewhere(both, there, pool)
    assert not both.stands_still(both.held[both.here], both.first), "the other node's tenant works on"
    both.cables[1].mend()
    returns_clean(both, old)
    second.place_one(pool)
    eventually(lambda: both.idle_at(second.id), 40)
    assert both.last(there) == ("assigned", "")
    assert both.last(both.here) == ("assigned", "")


@pytest.mark.long
def test_an_outage_of_the_database_stops_nobody(both, there, pool):
    for cable in both.cables:
        cable.cut()
    until = time.monotonic() + 40
    stood_still = 0
    while time.monotonic() < until:
        for tenant, container in both.held.items():
            node = both.second.id if tenant == there else both.first
            stood_still += both.stands_still(container, node)
    for cable in both.cables:
        cable.mend()
    assert stood_still == 0
    eventually(both.both_know, 40)
    time.sleep(LOST_WITHIN_S - 15)
    assert {both.last(tenant) for tenant in both.held} == {("assigned", "")}
    assert both.events("node.lost") == 0


@pytest.mark.long
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hung"])
def test_a_node_whose_processes_end_stops_too(both, there, pool, ending):
    """Worker and fence at once: the guard goes on alone."""
    second, fence = both.second, both.fences[both.second.id]
    os.kill(second.running["worker"].pid, ending)
    fence.send_signal(ending)
    comes_back_elsewhere(both, there, pool)
    if ending == signal.SIGSTOP:
        fence.send_signal(signal.SIGCONT)
        os.kill(second.running["worker"].pid, signal.SIGCONT)
    else:
        fence.wait()
        second.stop()
        second.start("worker")
        both.start_fence(second.id)
    returns_clean(both, both.held[there])


@pytest.mark.long
def test_a_fence_that_is_killed_and_started_again_costs_nothing(both, there, pool):
    second, container = both.second, both.held[there]
    for _ in range(2):
        fence = both.fences[second.id]
        fence.kill()
        fence.wait()
        both.start_fence(second.id)
        eventually(lambda: both.is_fenced(second.id), 20)
        assert not both.stands_still(container, second.id)
    fence = both.fences[second.id]
    fence.terminate()
    fence.wait(20)
    [(leased_at,)] = both.rows("SELECT leased_at FROM core_node WHERE id = %s", second.id)
    assert leased_at is None, "without a fence, it is not given up by itself"
    second.stop()
    time.sleep(LOST_WITHIN_S)
    assert both.state_of(second.id) == ("silent", 0)
    assert not both.stands_still(container, second.id)
    second.start("worker")
    eventually(lambda: both.state_of(second.id) == ("active", 0), 30)
