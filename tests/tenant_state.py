"""A tenant's state in its containers and at its sink, over claims, saves and crashes; real directories, real sinks."""

from __future__ import annotations

import os
import shutil
from uuid import uuid4

from boilerhouse.core import failpoints
from pools import nodes, volumes
from pools.spec import Owner
from syncing import restores, saves, sink_checks, targets
from syncing.models import SyncRun, SyncSpec
from syncing.states import Trigger
from tests import cgroups
from tests.make import make_container, make_pool, make_spec, make_sync_spec
from tests.power_cut import PowerCut

UID = 200_777
TENANT = "alice"
LOCATION = f"t/{TENANT}/state"


class TenantState:
    """A tenant's claims, one after another, each in a container directory of its own."""

    workload = make_spec()

    def __init__(self, sink_server, *, tenant_id=TENANT, spec=None, is_settled=False, **mapping) -> None:
        self.sink_server, self.tenant_id, self.generation = sink_server, tenant_id, 0
        self.spec = spec or make_sync_spec(
            make_pool(),
            sink=sink_server.definition,
            sink_secrets=sink_server.secrets,
            mappings=[{"sink_path": "t/${tenantId}/state/", **mapping}],
            sink_health={"state": "healthy", "conditionalWrites": sink_server.has_conditional_writes},
            is_settled=is_settled,
        )
        self.sink = self.spec.resolved_sink()
        self.claim()

    def claim(self) -> None:
        """A fresh container; what the sink holds is restored into it."""
        self.generation += 1
        self.container_id = uuid4()
        volumes.prepare(self.container_id, UID, self.workload)
        self.state = volumes.volume_path(self.container_id, "state")
        with volumes.locked(self.container_id, within_s=30) as lock:
            sink_states = sink_checks.check_spec(self.fresh(), self.tenant_id).answer()
            target = self.target(lock)
            if any(not sink_state.is_empty for sink_state in sink_states):
                restores.restore(target, sink_states, Trigger.CLAIM, lambda: True)
            else:
                restores.record_restored(sink_states, target)

    def fresh(self):
        return type(self.spec).objects.prefetch_related("mappings").get(pk=self.spec.pk)

    def target(self, lock: int) -> targets.TransferTarget:
        return targets.TransferTarget(
            self.container_id, Owner(UID, UID), self.spec.pool_id, self.workload, self.tenant_id, self.generation,
            lock, nodes.here(), is_stopped=True,
        )  # fmt: skip

    def save(self) -> None:
        with volumes.locked(self.container_id, within_s=30) as lock:
            saves.save(self.target(lock), [self.fresh()], Trigger.RELEASE, lambda: True)

    def inward(self) -> None:
        """Merge the state at the sink into the container, as an on-demand restore."""
        with volumes.locked(self.container_id, within_s=30) as lock:
            sink_states = sink_checks.check_spec(self.fresh(), self.tenant_id).answer()
            restores.restore(self.target(lock), sink_states, Trigger.MANUAL, lambda: True)

    def cut(self, place: str) -> None:
        """A save that ends there as by a power cut."""

        def now() -> None:
            raise PowerCut

        failpoints.hooks[place] = now
        try:
            self.save()
        except PowerCut:
            pass
        finally:
            failpoints.hooks.clear()

    def write(self, **files: str) -> None:
        for name, content in files.items():
            path = self.state / name
            path.write_text(content)
            os.chown(path, UID, UID)

    def remove(self, *names: str) -> None:
        for name in names:
            (self.state / name).unlink()

    def look(self) -> dict[str, str]:
        return {str(path.relative_to(self.state)): path.read_text() for path in self.state.rglob("*") if path.is_file()}

    def lose_host(self) -> None:
        shutil.rmtree(volumes.home(self.container_id))


class LiveState(TenantState):
    """A tenant whose container runs while it is saved; its processes are in the freezer ``runtime_id``."""

    def __init__(self, sink_server, runtime_id: str = "", **mapping) -> None:
        self.runtime_id, self.processes = runtime_id, []
        super().__init__(sink_server, **mapping)
        SyncSpec.objects.filter(pk=self.spec.pk).update(interval_ms=60_000)

    def claim(self) -> None:
        super().claim()
        make_container(self.spec.pool, pk=self.container_id, runtime_id=self.runtime_id, uid=UID)

    def target(self, lock: int) -> targets.TransferTarget:
        return targets.TransferTarget(
            self.container_id, Owner(UID, UID), self.spec.pool_id, make_spec(), self.tenant_id, self.generation,
            lock, nodes.here(), is_stopped=False,
        )  # fmt: skip

    def save(self) -> dict:
        """What the run's step says."""
        with volumes.locked(self.container_id, within_s=30) as lock:
            saves.save(self.target(lock), [self.fresh()], Trigger.INTERVAL, lambda: True)
        return SyncRun.objects.filter(direction="upload").latest("created_at").steps[0]

    def told(self) -> dict:
        return self.save()["snapshot"]

    def start(self, script: str):
        self.processes.append(cgroups.start(self.runtime_id, script, self.state))
        return self.processes[-1]

    def come_back(self) -> dict[str, str]:
        """The host is lost; what a claim then gives."""
        for process in self.processes:
            process.kill()
            process.wait()
        self.lose_host()
        self.claim()
        return self.look()
