"""What the demo data's deployment has now: workloads, pools, specs, containers and tenants."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from boilerhouse.core.deployment import node_id
from boilerhouse.core.models import ApiKey, AuditEntry, Process, Role
from boilerhouse.operations.demo_data.catalogue import (
    CACHE_S3,
    MB,
    POOLS,
    REFUSAL,
    SPECS,
    TENANTS,
    WORKLOADS,
    DemoPool,
    DemoSpec,
    DemoTenant,
)  # fmt: skip
from boilerhouse.operations.demo_data.history import SPEC_OF, History, Hold
from boilerhouse.operations.demo_data.rows import Rows
from pools.models import Container, ImagePull, Pool, RegistryCredential, Workload, WorkloadVersion
from pools.states import ContainerHealth, ContainerState, Fault, PullState
from syncing import sinks
from syncing.models import Credential, SavedState, SinkPlace, SinkProbe, SyncMapping, SyncRun, SyncSpec
from syncing.states import Direction, Mode, PlaceState, SyncRunState, Trigger
from tenants.models import Assignment, Tenant
from tenants.releases import RETRY_S
from tenants.states import AssignmentState, ReleaseReason, ReleaseStep, Source

PROBE_MIN = 10
VERSION_DAYS = (30.0, 0.08)
"""The ages of a workload's versions: a new one is two hours old."""
PROCESSES = ((Process.Kind.WORKER, "worker"), (Process.Kind.CONTROLLER, "controller"))
ELSEWHERE = "boilerhouse-demo"
"""The pid space of processes that are rows only."""


def stamp(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(slots=True)
class Present:
    """Makes the rows of now, and the history that leads to them."""

    rows: Rows

    def write(self) -> History:
        versions = self._workloads()
        specs, mappings = self._pools_and_specs(versions)
        for tenant in TENANTS:
            at = self._before(days=20)
            self.rows.add(Tenant, id=tenant.id, created_at=at, seen_at=at)
        history = History(self.rows, versions, specs, mappings)
        history.write_past()
        for tenant in TENANTS:
            self._tenant(history, tenant)
        for pool in POOLS:
            self._waiting_containers(history, pool)
        self._saved_states(history)
        self._probes(specs)
        self._generations()
        self._settings()
        return history

    def _before(self, **ago: float) -> datetime:
        return self.rows.now - timedelta(**ago)

    # What people made ------------------------------------------------------------------------------

    def _workloads(self) -> dict[str, list[WorkloadVersion]]:
        versions: dict[str, list[WorkloadVersion]] = {}
        for workload in WORKLOADS:
            row = Workload(id=workload.id, name=workload.name, created_at=self._before(days=41))
            row.save(force_insert=True)
            versions[workload.id] = []
            for number, image in enumerate(workload.images, 1):
                at = self._before(days=VERSION_DAYS[number - 1])
                digest = f"sha256:{self.rows.hex(64)}"
                version = WorkloadVersion(
                    workload=row, number=number, spec_json=workload.spec(image), created_at=at, image_volumes=[],
                    image_digest=digest, manifest_digest=f"sha256:{self.rows.hex(64)}",
                    tag_asked_at=self._before(hours=2), created_by="user admin",
                )  # fmt: skip
                version.save(force_insert=True)
                versions[workload.id].append(version)
                self.rows.event("workload.updated", at, actor="user admin",
                                payload={"workloadId": workload.id, "version": number})  # fmt: skip
                progress = {"phase": "done", "percent": 100, "bytes": 180 * MB}
                self.rows.add(
                    ImagePull, node_id=node_id(), image=image, state=PullState.DONE, asked_at=at, started_at=at,
                    finished_at=at + timedelta(seconds=14), digest=version.manifest_digest, progress=progress,
                )  # fmt: skip
        return versions

    def _pools_and_specs(
        self, versions: dict[str, list[WorkloadVersion]]
    ) -> tuple[dict[str, SyncSpec], dict[str, SyncMapping]]:
        for pool in POOLS:
            newest = versions[pool.workload][-1]
            unsaved = sum(tenant.pool == pool.id and tenant.now == "unsaved" for tenant in TENANTS)
            row = Pool(
                id=pool.id, name=pool.name, workload_id=pool.workload, min_size=pool.min_size, max_size=pool.max_size,
                min_idle=pool.min_idle, target_size=pool.min_size, idle_timeout_ms=pool.idle_timeout_ms,
                good_version=newest, is_paused=pool.is_paused, release_failed=unsaved, created_at=self._before(days=40),
            )  # fmt: skip
            row.save(force_insert=True)
        for credential in sorted({spec.credential for spec in SPECS}):
            secret = {"accessKeyId": f"AKIADEMO{self.rows.hex(8).upper()}", "secretAccessKey": self.rows.hex(40)}
            stored = Credential(id=credential, name=credential, secret=secret, created_at=self._before(days=40))
            stored.save(force_insert=True)
        specs, mappings = {}, {}
        for spec in SPECS:
            specs[spec.id] = self._spec(spec)
            mapping = SyncMapping(
                spec=specs[spec.id], position=0, container_path="/state", sink_path="state/",
                direction=Direction.BIDIRECTIONAL, mode=Mode.SYNC,
            )  # fmt: skip
            mapping.save(force_insert=True)
            mappings[spec.id] = mapping
        return specs, mappings

    def _spec(self, spec: DemoSpec) -> SyncSpec:
        place = sinks.resolve(spec.sink, {}).place_name
        checked = self._before(minutes=2.5 if spec.failing_min else self._last_probe_min(spec))
        health: dict[str, Any] = {"state": "healthy", "checkedAt": stamp(checked), "transferredAt": stamp(checked),
                                  "conditionalWrites": True}  # fmt: skip
        if spec.failing_min:
            health = {"state": "unhealthy", "checkedAt": stamp(checked), "code": "denied", "detail": REFUSAL}
        place_id = self.rows.hex(32)
        if not any(row.name == place for row in self.rows.of(SinkPlace)):
            self.rows.add(SinkPlace, name=place, place_id=place_id, seen_at=checked)
        place_id = next(row.place_id for row in self.rows.of(SinkPlace) if row.name == place)
        row = SyncSpec(
            id=spec.id, name=spec.name, pool_id=spec.pool, version=2, sink=spec.sink, credential_id=spec.credential,
            on_claim=True, on_release=True, interval_ms=spec.interval_min * 60_000 or None, sink_health=health,
            place={"spelled": place, "id": place_id, "others": [], "addresses": []}, place_state=PlaceState.KNOWN,
            created_at=self._before(days=39), located_at=self._before(days=39),
        )  # fmt: skip
        row.save(force_insert=True)
        return row

    def _last_probe_min(self, spec: DemoSpec) -> float:
        return 1 + SPECS.index(spec) * 1.7

    def _probes(self, specs: dict[str, SyncSpec]) -> None:
        """One every ten minutes of the last day; an outage of half an hour, which is repaired."""
        for spec in SPECS:
            for number in range(24 * 60 // PROBE_MIN):
                ago = number * PROBE_MIN + self._last_probe_min(spec)
                is_out = spec.id == "agents-state" and 610 < ago < 645
                is_refused = ago < spec.failing_min
                code, detail = ("denied", REFUSAL) if is_refused else ("", "")
                if is_out:
                    code, detail = "unreachable", "The endpoint https://s3.example.com did not answer in 5 s."
                took = 5000 if is_out else round(45 + 60 * self.rows.random.random())
                self.rows.add(SinkProbe, spec=specs[spec.id], at=self._before(minutes=ago), code=code, detail=detail,
                              is_healthy=not code, duration_ms=took)  # fmt: skip

    # Containers and tenants ------------------------------------------------------------------------

    def _container(
        self, history: History, pool: DemoPool, id: UUID, state: ContainerState, at: datetime, **over: Any
    ) -> Container:
        number = len(self.rows.of(Container))
        created = datetime.fromtimestamp((id.int >> 80) / 1000, at.tzinfo)
        version = history.version_at(pool, created)
        values: dict[str, Any] = {
            "health": ContainerHealth.HEALTHY, "runtime_id": self.rows.hex(64), "nonce": self.rows.hex(32),
            "address": f"10.117.{number // 200}.{number % 200 + 3}", "image_digest": version.image_digest,
            "disk_bytes": round(pool.state_bytes * self.rows.random.uniform(0.9, 1.2)),
        }  # fmt: skip
        return self.rows.add(
            Container, id=id, pool_id=pool.id, version=version, state=state, node_id=node_id(),
            uid=200_000 + number, created_at=created, state_changed_at=at, **{**values, **over},
        )  # fmt: skip

    def _tenant(self, history: History, tenant: DemoTenant) -> None:
        pool = next(one for one in POOLS if one.id == tenant.pool)
        since = self._before(minutes=tenant.minutes)
        match tenant.now:
            case "assigned":
                self._assigned(history, tenant, history.hold(pool, tenant.id, since, None))
            case "restoring":
                self._restoring(history, tenant, history.hold(pool, tenant.id, since, None))
            case "saving":
                start = since - timedelta(minutes=34)
                self._saving(history, history.hold(pool, tenant.id, start, since))
            case "unsaved":
                start = since - timedelta(minutes=8)
                self._unsaved(history, history.hold(pool, tenant.id, start, since))

    def _assigned(self, history: History, tenant: DemoTenant, hold: Hold) -> None:
        history.holds.append(hold)
        history.claim(hold)
        history.save_while_held(hold)
        over: dict[str, Any] = {}
        if tenant.is_unhealthy:
            words = "Health check failed 3 times: wget: can't connect to remote host (127.0.0.1): Connection refused."
            over = {"health": ContainerHealth.UNHEALTHY, "fault": Fault.UNHEALTHY, "error": words}
            self.rows.event(
                "container.unhealthy", self._before(minutes=1.6), pool_id=hold.pool.id, container_id=hold.container,
                tenant_id=hold.tenant, payload={"reason": Fault.UNHEALTHY.value, "detail": words, "state": "claimed"},
            )  # fmt: skip
        row = self._container(history, hold.pool, hold.container, ContainerState.CLAIMED, hold.start, **over)
        active = max(hold.start, self._before(minutes=tenant.idle_min))
        history.assignment(
            hold, state=AssignmentState.ASSIGNED, container=row, uid=row.uid, config=tenant.config,
            endpoints=row.endpoints(), last_activity_at=active,
        )  # fmt: skip

    def _restoring(self, history: History, tenant: DemoTenant, hold: Hold) -> None:
        """A claim whose restore is half done."""
        history.holds.append(hold)
        row = self._container(history, hold.pool, hold.container, ContainerState.CLAIMED, hold.start)
        progress = {"files": 96, "totalFiles": 214, "bytes": 28 * MB, "totalBytes": 62 * MB, "percent": 45,
                    "bytesPerSecond": 11 * MB, "etaMs": 3100}  # fmt: skip
        self._running(history, hold, Direction.DOWNLOAD, Trigger.CLAIM, progress)
        history.assignment(
            hold, state=AssignmentState.PENDING, container=row, uid=row.uid, was_assigned=False, latency_ms=None,
            assigned_at=None, last_activity_at=None, config=tenant.config, source=Source.WARM,
            deadline=self._before(minutes=-2), state_changed_at=hold.start,
        )  # fmt: skip

    def _saving(self, history: History, hold: Hold) -> None:
        """A release that saves now; its container is still in use."""
        history.holds.append(replace(hold, end=None))
        history.claim(hold)
        assert hold.end is not None
        row = self._container(history, hold.pool, hold.container, ContainerState.CLAIMED, hold.start)
        progress = {"files": 61, "totalFiles": 88, "bytes": 3 * MB, "totalBytes": 4 * MB, "percent": 72,
                    "bytesPerSecond": MB, "etaMs": 1100}  # fmt: skip
        self._running(history, hold, Direction.UPLOAD, Trigger.RELEASE, progress)
        history.assignment(
            hold, state=AssignmentState.RELEASING, container=row, uid=row.uid, step=ReleaseStep.SAVING,
            reason=ReleaseReason.REQUESTED, released_by="user kim", last_activity_at=hold.end,
        )  # fmt: skip

    def _running(
        self, history: History, hold: Hold, direction: Direction, trigger: Trigger, progress: dict[str, Any]
    ) -> None:
        at = hold.end or hold.start
        self.rows.add(
            SyncRun, id=self.rows.uuid(at), spec=history.specs[SPEC_OF[hold.pool.id].id], tenant_id=hold.tenant,
            container_id=hold.container, generation=hold.generation, direction=direction, trigger=trigger,
            state=SyncRunState.RUNNING, progress={**progress, "sentBytes": progress["bytes"]}, created_at=at,
            started_at=at + timedelta(milliseconds=40), asked_by="key gateway",
        )  # fmt: skip

    def _unsaved(self, history: History, hold: Hold) -> None:
        """A release whose save the sink has refused so far: the container is gone, its directory stays."""
        history.holds.append(hold)
        history.claim(hold)
        spec, at = SPEC_OF[hold.pool.id], hold.end
        assert at is not None
        attempt = -1
        for attempt, delay in enumerate(_retries(self.rows.now - at)):
            history.refused(hold, spec, at + delay)
            payload = {
                "code": "denied",
                "detail": REFUSAL,
                "nextAttemptInMs": 1000 * RETRY_S[min(attempt, len(RETRY_S) - 1)],
            }
            self.rows.event(
                "container.release_failed", at + delay + timedelta(seconds=1), pool_id=hold.pool.id,
                tenant_id=hold.tenant, container_id=hold.container, payload=payload,
            )  # fmt: skip
        history.assignment(
            hold, state=AssignmentState.RELEASE_FAILED, container=None, directory_node=node_id(), uid=None,
            outcome="denied", outcome_detail=REFUSAL, reason=ReleaseReason.REQUESTED, released_by="key gateway",
            attempt=attempt, next_attempt_at=self._before(minutes=-4), step=ReleaseStep.SAVING,
        )  # fmt: skip

    def _waiting_containers(self, history: History, pool: DemoPool) -> None:
        for number in range(pool.idle):
            at = self._before(minutes=2 + 11 * number + 9 * self.rows.random.random())
            row = self._container(history, pool, self.rows.uuid(at), ContainerState.IDLE, at, disk_bytes=4096)
            about: dict[str, Any] = {"pool_id": pool.id, "container_id": row.pk}
            self.rows.event("container.created", at, **about, payload={})
            ready = at + timedelta(seconds=1.4)
            payload = {"durationMs": 1400, "version": row.version.number}
            self.rows.event("container.ready", ready, **about, payload=payload)
        for _ in range(pool.starting):
            at = self._before(seconds=3)
            self._container(
                history, pool, self.rows.uuid(at), ContainerState.STARTING, at, health=ContainerHealth.UNKNOWN,
                address=None, disk_bytes=None,
            )  # fmt: skip
            self.rows.event("container.created", at, pool_id=pool.id, payload={})

    # What follows from it --------------------------------------------------------------------------

    def _saved_states(self, history: History) -> None:
        pool_of = {tenant.id: tenant.pool for tenant in TENANTS}
        for tenant_id, saved in history.saved.items():
            spec = SPEC_OF[pool_of[tenant_id]]
            mapping, row = history.mappings[spec.id], history.specs[spec.id]
            self.rows.add(
                SavedState, tenant_id=tenant_id, mapping=mapping, place=row.place["spelled"],
                location=mapping.location(tenant_id), container_path="/state", pool_id=spec.pool,
                generation=saved.generation, run_id=saved.run, files=saved.files, bytes=saved.size,
                marker_bytes=900 + 90 * saved.files, saved_at=saved.at,
            )  # fmt: skip

    def _generations(self) -> None:
        newest: dict[str, int] = {}
        for assignment in self.rows.of(Assignment):
            newest[assignment.tenant_id] = max(newest.get(assignment.tenant_id, 0), assignment.generation)
        for tenant in self.rows.of(Tenant):
            tenant.generation = newest.get(tenant.pk, 0)

    def _settings(self) -> None:
        keys = (("gateway", Role.OPERATOR, 0.2), ("grafana", Role.VIEWER, 12), ("ci", Role.OPERATOR, 1300))
        for name, role, used_s in keys:
            self.rows.add(
                ApiKey, id=self.rows.hex(8), name=name, role=role, key_hash=self.rows.hex(64),
                created_at=self._before(days=40), last_used_at=self._before(seconds=used_s),
                expires_at=self._before(days=-3 if name == "ci" else -300),
            )  # fmt: skip
        secret = {"username": "puller", "password": self.rows.hex(20)}
        self.rows.add(RegistryCredential, id="registry-example", name="Registry", registry="registry.example.com",
                      secret=secret, created_at=self._before(days=40))  # fmt: skip
        for kind, name in PROCESSES:
            self.rows.add(
                Process, id=self.rows.uuid(self._before(days=2)), kind=kind, name=name, node_id=node_id(),
                pid_space=ELSEWHERE, boot_id=ELSEWHERE, pid=400 + len(name), pid_started=1,
                started_at=self._before(days=2), heartbeat_at=self.rows.now,
            )  # fmt: skip
        for entry in _changes(self.rows):
            self.rows.add(AuditEntry, id=self.rows.uuid(entry["at"]), request_id=self.rows.hex(32), **entry)


def _retries(age: timedelta) -> Iterator[timedelta]:
    """When a save was tried until now, from its first attempt on."""
    at = timedelta(0)
    for delay in itertools.chain(RETRY_S, itertools.repeat(RETRY_S[-1])):
        if at >= age:
            return
        yield at
        at += timedelta(seconds=delay)


def _changes(rows: Rows) -> Iterator[dict[str, Any]]:
    """What people changed in the last week."""
    listed: list[tuple[float, str, str, str, Any, Any]] = [
        (161, "user admin", "pool.create", "postgres-sandboxes", None, {"name": "PostgreSQL sandboxes", "maxSize": 4}),
        (140, "user admin", "api_key.create", "gateway", None, {"name": "gateway", "role": "operator"}),
        (97, "user kim", "pool.scale", "browser-agents", {"targetSize": 3}, {"targetSize": 4}),
        (70, "user admin", "sync_spec.update", "notes-state", {"interval_ms": 3_600_000}, {"interval_ms": 1_800_000}),
        (49, "user kim", "pool.scale", "notes", {"targetSize": 4}, {"targetSize": 6}),
        (26, "key ci", "workload.update", "build-worker", {"image": "builder:17"}, {"image": "builder:18"}),
        (5.5, "user kim", "pool.paused", "postgres-sandboxes", None, None),
        (2, "user admin", "workload.update", "notes", {"image": "notes:2.3"}, {"image": "notes:2.4"}),
        (0.79, "user kim", "credential.update", "build-cache", {"accessKeyId": "AKIA…41"}, {"accessKeyId": "AKIA…7F"}),
        (0.003, "user kim", "tenant.release", "wayne-108", None, {"poolId": "notes"}),
    ]
    for hours, actor, action, object_id, before, after in listed:
        at = rows.now - timedelta(hours=hours)
        yield {"at": at, "actor": actor, "action": action, "kind": action.partition(".")[0], "object_id": object_id,
               "before": before, "after": after}  # fmt: skip


assert {spec.sink["endpoint"] for spec in SPECS if spec.failing_min} == {CACHE_S3}
