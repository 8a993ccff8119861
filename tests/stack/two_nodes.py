"""Two nodes as two real workers: a data directory each, one PostgreSQL, and one engine that both use."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psycopg
import requests

from boilerhouse.operations.supervisor import free_port
from pools.host import NODE_LABEL
from tests.docker_command import docker
from tests.stack.conftest import ROOT, Stack
from tests.stack.machines import Machine

PLACE = """
from django.db import transaction
from boilerhouse.core.deployment import deployment_id
from pools import sizing
from pools.models import Pool, WorkloadVersion
from pools.nodes import here
deployment_id()
with transaction.atomic():
    pool = Pool.objects.select_for_update().get(pk="{pool}")
    Pool.objects.filter(pk=pool.pk).update(min_size=pool.min_size + 1)
    template = pool.newest_template
    sizing._insert(pool, template, WorkloadVersion.objects.get(pk=template.version_id), here())
"""


class SecondNode:
    """A worker with a data directory of its own on the machine's database, which has joined its deployment.

    It has no other setting of its own, so both nodes use one directory in RAM. It looks often at what is there.
    """

    def __init__(self, machine: Machine, directory: Path, *, inside: tuple[str, ...] = (), **more: str) -> None:
        """``inside`` goes before each command that runs there; ``more`` are settings."""
        self.inside = inside
        self.data, self.points = directory / "data", directory / "failpoints"
        for path in (self.data, self.points):
            path.mkdir(parents=True)
        self.environment = machine.environment | {
            "BOILERHOUSE_DATA_DIR": str(self.data), "BOILERHOUSE_FAILPOINTS": str(self.points),
            "BOILERHOUSE_RECONCILE_EVERY_S": "2", "BOILERHOUSE_ORPHAN_GRACE_S": "1",
            "BOILERHOUSE_NODE_ADDRESS": f"127.0.0.1:{free_port()}", **more,
        }  # fmt: skip
        self.log = directory / "processes.log"
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def id(self) -> str:
        return (self.data / "node-id").read_text().strip()

    def manage(self, *arguments: str, code: int = 0) -> str:
        """What the command said. Its exit code must be ``code``."""
        command = [*self.inside, sys.executable, str(ROOT / "manage.py"), *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == code, done.stderr[-3000:]
        return done.stderr

    def place_one(self, pool: str) -> None:
        """Have one more warm container of the pool, on this node: who decides on a start is the node that has it."""
        self.manage("shell", "-v", "0", "-c", PLACE.format(pool=pool))

    def start(self, kind: str) -> None:
        command = [*self.inside, sys.executable, str(ROOT / "manage.py"), f"run_{kind}", "--skip-checks"]
        with self.log.open("ab") as output:
            self.running[kind] = subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip

    def stop(self, *kinds: str) -> None:
        for kind in kinds or tuple(self.running):
            process = self.running.pop(kind)
            process.terminate()
            process.wait(30)


class Both:
    """The machine's node, with web and controller, and the second."""

    def __init__(self, machine: Machine, stack: Stack, second: SecondNode) -> None:
        self.machine, self.stack, self.second = machine, stack, second
        self.first = (machine.data / "node-id").read_text().strip()

    def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.machine.environment["DATABASE_URL"]) as connection:
            return connection.execute(statement, values).fetchall()  # type: ignore[arg-type]

    def idle_at(self, node: str) -> list[str]:
        rows = self.rows("SELECT id FROM pools_container WHERE node = %s AND state = 'idle'", node)
        return [str(pk) for (pk,) in rows]

    def node_of(self, container: str) -> str:
        [(node,)] = self.rows("SELECT node FROM pools_container WHERE id = %s", container)
        return str(node)

    def last(self, tenant: str) -> tuple[str, str]:
        """State and outcome of the tenant's newest claim."""
        statement = (
            "SELECT state, outcome FROM tenants_assignment WHERE tenant_id = %s ORDER BY created_at DESC LIMIT 1"
        )
        [(state, outcome)] = self.rows(statement, tenant)
        return state, outcome

    def saves(self, tenant: str) -> list[tuple[Any, ...]]:
        """Trigger and state of each of its saves."""
        statement = "SELECT trigger, state FROM syncing_syncrun WHERE tenant_id = %s AND direction = 'upload'"
        return self.rows(statement, tenant)

    def data_of(self, node: str) -> Path:
        return self.second.data if node == self.second.id else self.machine.data

    def pid_at_the_first(self, kind: str) -> int:
        statement = "SELECT pid FROM core_process WHERE kind = %s AND node_id = %s ORDER BY started_at DESC LIMIT 1"
        return int(self.rows(statement, kind, self.first)[0][0])

    def leading_node(self) -> str:
        statement = (
            "SELECT node_id FROM core_process JOIN core_lease ON holder = core_process.id WHERE expires_at > now()"
        )
        return "".join(node for (node,) in self.rows(statement))

    def is_untouched(self, container: str, tenant: str) -> None:
        """Its node's worker is dead: its state is neither saved nor removed, and nobody reports either."""
        assert self.last(tenant) == ("releasing", "")
        self.is_all_there(container)

    def is_all_there(self, container: str) -> None:
        assert (self.data_of(self.node_of(container)) / "containers" / container / "claimed").is_file()
        assert (self.ram_dir / container / "secrets").is_dir()
        assert engine("ps", "-aq", "--filter", f"name=bh-{container}")

    @property
    def ram_dir(self) -> Path:
        return Path("/run/boilerhouse") / (self.machine.data / "deployment-id").read_text().strip()

    def have_verdicts(self, *containers: str) -> bool:
        """Whether the packet filter has a verdict for each of them; without one, a container reaches nothing."""
        [rules] = [
            subprocess.run(
                ["nft", "list", "map", "inet", f"boilerhouse_{self.ram_dir.name}", "policies"],
                capture_output=True, text=True, check=True, timeout=20,
            ).stdout
        ]  # fmt: skip
        rows = self.rows("SELECT host(address) FROM pools_container WHERE id = ANY(%s::uuid[])", list(containers))
        assert len(rows) == len(containers)
        return all(f"{address} :" in rules for (address,) in rows)

    def claim_one_of_each(self, pool: str) -> tuple[str, str, dict[str, str]]:
        """Two tenants claim at once, and each writes its name: one at the first node, one at the second; who has which
        container."""
        claims: dict[str, requests.Response] = {}

        def claim(tenant: str) -> None:
            claims[tenant] = self.stack.call("POST", f"tenants/{tenant}/claim?timeoutMs=40000", {"poolId": pool})

        threads = [threading.Thread(target=claim, args=(name,)) for name in ("ann", "ben")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {answer.status_code for answer in claims.values()} == {201}
        held = {tenant: answer.json()["containerId"] for tenant, answer in claims.items()}
        by_node = {self.node_of(container): tenant for tenant, container in held.items()}
        assert set(by_node) == {self.first, self.second.id}, "each node's warm container was claimed"
        for node, tenant in by_node.items():
            self.is_all_there(held[tenant])
            (other,) = {self.first, self.second.id} - {node}
            assert not (self.data_of(other) / "containers" / held[tenant]).exists()
            engine("exec", f"bh-{held[tenant]}", "sh", "-c", f"echo {tenant} > /state/who")
        return by_node[self.first], by_node[self.second.id], held

    def comes_back(self, tenant: str, pool: str) -> None:
        """Its state was saved: it is in the container that the tenant gets next."""
        container = self.stack.claim(tenant, pool)["containerId"]
        assert engine("exec", f"bh-{container}", "cat", "/state/who") == [tenant]


def engine(*arguments: str) -> list[str]:
    return docker(*arguments).split()


def of_node(node: str) -> list[str]:
    return engine("ps", "-aq", "--filter", f"label={NODE_LABEL}={node}")
