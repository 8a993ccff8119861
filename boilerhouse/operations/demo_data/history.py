"""A week of claims, saves and restores that have ended, with their events, and the claims of the week before."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from boilerhouse.operations.demo_data.catalogue import POOLS, REFUSAL, SPECS, TENANTS, DemoPool, DemoSpec
from boilerhouse.operations.demo_data.rows import Rows
from pools.models import WorkloadVersion
from syncing.models import Backup, SyncMapping, SyncRun, SyncSpec
from syncing.querysets import is_unchanged
from syncing.states import Direction, SyncRunState, Trigger
from tenants.models import Assignment
from tenants.states import AssignmentState, ReleaseReason, Source

WEEKEND = 0.35
MINUTES = {
    "notes": 42, "notebooks": 150, "build-workers": 7, "browser-agents": 19, "postgres-sandboxes": 260
}  # fmt: skip
"""The median duration of a claim."""
QUIET_MIN = 40
"""A tenant that holds something now claimed nothing else in this time before."""
GATEWAY = "key gateway"
SPEC_OF = {spec.pool: spec for spec in SPECS}
MICROSECONDS = 1_000_000


@dataclass(slots=True)
class Hold:
    """A tenant's use of a container; ``end`` is None while it lasts."""

    pool: DemoPool
    tenant: str
    container: UUID
    start: datetime
    end: datetime | None
    source: Source
    latency_ms: int
    files: int
    size: int

    @property
    def generation(self) -> int:
        return int(self.start.timestamp() * MICROSECONDS)


@dataclass(slots=True)
class Saved:
    """What a tenant's last complete save left at the sink."""

    run: UUID
    at: datetime
    files: int
    size: int
    generation: int


@dataclass(slots=True)
class History:
    """Makes the rows of holds; knows of each tenant what is saved."""

    rows: Rows
    versions: dict[str, list[WorkloadVersion]]
    """Of each workload, oldest first."""
    specs: dict[str, SyncSpec]
    mappings: dict[str, SyncMapping]
    """By the spec's id."""
    saved: dict[str, Saved] = field(default_factory=dict)
    holds: list[Hold] = field(default_factory=list)

    # Holds -----------------------------------------------------------------------------------------

    def write_past(self) -> None:
        """Every claim that has ended in the time of the history; of as long before, without what it did, to compare."""
        for pool in POOLS:
            for hold in self._past(pool):
                if hold.start < self.rows.now - timedelta(days=self.rows.days):
                    self._end(hold, ReleaseReason.REQUESTED, GATEWAY)
                    continue
                self.holds.append(hold)
                self.claim(hold)
                self.save_while_held(hold)
                self._release(hold)

    def _past(self, pool: DemoPool) -> Iterator[Hold]:
        """Claims in the order of their times; a tenant has one at a time, and never more than the pool has room."""
        chance = self.rows.random
        tenants = [tenant for tenant in TENANTS if tenant.pool == pool.id]
        free_at: dict[str, datetime] = {}
        until = {
            tenant.id: self.rows.now - timedelta(minutes=tenant.minutes + QUIET_MIN) for tenant in tenants
        }  # fmt: skip
        ends: list[datetime] = []
        for start in self._starts(pool):
            minutes = MINUTES[pool.id] * math.exp(chance.gauss(0, 0.6))
            end = start + timedelta(minutes=max(1.5, minutes))
            ends = [one for one in ends if one > start]
            who = [one.id for one in tenants if free_at.get(one.id, start) <= start and end < until[one.id]]
            if not who or len(ends) >= pool.max_size - 2:
                continue
            tenant = chance.choice(who)
            free_at[tenant] = end + timedelta(minutes=2)
            ends.append(end)
            yield self.hold(pool, tenant, start, end)

    def _starts(self, pool: DemoPool) -> list[datetime]:
        """More on weekdays and by day than at weekends and by night."""
        chance, starts = self.rows.random, []
        midnight = self.rows.now.replace(hour=0, minute=0, second=0, microsecond=0)
        for back in range(2 * self.rows.days, -1, -1):
            day = midnight - timedelta(days=back)
            count = pool.day * (WEEKEND if day.weekday() >= 5 else 1) * chance.uniform(0.85, 1.15)
            starts += [day + timedelta(hours=chance.triangular(0, 24, 13)) for _ in range(round(count))]
        return sorted(at for at in starts if self.rows.now - timedelta(days=2 * self.rows.days) < at < self.rows.now)

    def hold(self, pool: DemoPool, tenant: str, start: datetime, end: datetime | None) -> Hold:
        """A use of a new container; one in twelve claims was cold."""
        chance = self.rows.random
        is_cold = chance.random() < 0.08
        usual = 2400 if is_cold else pool.warm_ms
        before = self.saved.get(tenant)
        size = round((before.size if before else pool.state_bytes) * chance.uniform(0.98, 1.05))
        return Hold(
            pool, tenant, self.rows.uuid(start - timedelta(minutes=chance.uniform(1, 50))), start, end,
            Source.COLD if is_cold else Source.WARM, round(usual * math.exp(chance.gauss(0, 0.25))),
            round(40 + 200 * chance.random()), size,
        )  # fmt: skip

    def version_at(self, pool: DemoPool, at: datetime) -> WorkloadVersion:
        """The newest version that there was."""
        versions = self.versions[pool.workload]
        return next((one for one in reversed(versions) if one.created_at <= at), versions[0])

    def claim(self, hold: Hold) -> None:
        """The events of a claim and of the container that it took, and its restore."""
        rows, created = self.rows, _made_at(hold.container)
        about: dict[str, Any] = {"pool_id": hold.pool.id, "container_id": hold.container}
        ready_ms = round(900 + 900 * rows.random.random())
        rows.event("container.created", created, **about, payload={})
        ready = {"durationMs": ready_ms, "version": self.version_at(hold.pool, created).number}
        rows.event("container.ready", created + timedelta(milliseconds=ready_ms), **about, payload=ready)
        spec, saved = SPEC_OF[hold.pool.id], self.saved.get(hold.tenant)
        restored = None
        if saved is not None:
            took = timedelta(milliseconds=40 + saved.size / 120_000)
            self.run(hold, spec, Direction.DOWNLOAD, Trigger.CLAIM, hold.start, took, GATEWAY)
            restored = {"files": saved.files, "bytes": saved.size}
            hold.latency_ms += round(took.total_seconds() * 1000)
        payload = {"source": hold.source.value, "latencyMs": hold.latency_ms, "restored": restored,
                   "generation": hold.generation}  # fmt: skip
        at = hold.start + timedelta(milliseconds=hold.latency_ms)
        rows.event("container.claimed", at, actor=GATEWAY, **about, tenant_id=hold.tenant, payload=payload)

    def save_while_held(self, hold: Hold) -> None:
        """The periodic saves until the hold ended, or until now."""
        spec = SPEC_OF[hold.pool.id]
        if not spec.interval_min:
            return
        step = timedelta(minutes=spec.interval_min * 0.95)
        at = hold.start + step
        while at < (hold.end or self.rows.now):
            self.run(hold, spec, Direction.UPLOAD, Trigger.INTERVAL, at, timedelta(seconds=2.4), "")
            at += step

    def _release(self, hold: Hold) -> None:
        rows, end = self.rows, hold.end
        assert end is not None
        is_idle = hold.pool.idle_timeout_ms > 0 and rows.random.random() < 0.4
        reason = ReleaseReason.IDLE if is_idle else ReleaseReason.REQUESTED
        by = "" if is_idle else "user kim" if rows.random.random() < 0.06 else GATEWAY
        self.run(hold, SPEC_OF[hold.pool.id], Direction.UPLOAD, Trigger.RELEASE, end, timedelta(seconds=3.1), by)
        self._end(hold, reason, by)
        about = {"pool_id": hold.pool.id, "container_id": hold.container, "tenant_id": hold.tenant}
        removal = end + timedelta(seconds=4.2)
        payload = {"outcome": "released", "reason": reason.value}
        rows.event("container.released", removal, actor=by or "system", **about, payload=payload)
        rows.event(
            "container.destroyed", removal + timedelta(seconds=1), pool_id=hold.pool.id, container_id=hold.container,
            payload={},
        )  # fmt: skip

    def _end(self, hold: Hold, reason: ReleaseReason, by: str) -> None:
        over = {"outcome": "released", "reason": reason, "released_by": by, "ended_at": hold.end}
        self.assignment(hold, state=AssignmentState.ENDED, **over)

    def assignment(self, hold: Hold, *, state: AssignmentState, **over: Any) -> Assignment:
        """The row of a hold; its container's own row is gone unless ``over`` names it."""
        ready = hold.start + timedelta(milliseconds=hold.latency_ms)
        values: dict[str, Any] = {
            "id": self.rows.uuid(hold.start), "tenant_id": hold.tenant, "pool_id": hold.pool.id,
            "generation": hold.generation, "container_ref": hold.container, "source": hold.source,
            "version": self.version_at(hold.pool, _made_at(hold.container)), "claimed_by": GATEWAY,
            "was_assigned": True, "latency_ms": hold.latency_ms, "created_at": hold.start, "assigned_at": ready,
            "deadline": hold.start + timedelta(seconds=30), "last_activity_at": hold.end,
            "state_changed_at": hold.end or ready, "state": state,
        }  # fmt: skip
        return self.rows.add(Assignment, **{**values, **over})

    # Runs ------------------------------------------------------------------------------------------

    def run(
        self, hold: Hold, spec: DemoSpec, direction: Direction, trigger: Trigger, at: datetime, took: timedelta, by: str
    ) -> SyncRun:
        """A run that succeeded; a save changes what is saved of the tenant."""
        is_save, saved, chance = direction == Direction.UPLOAD, self.saved.get(hold.tenant), self.rows.random
        files, size = (hold.files, hold.size) if is_save or saved is None else (saved.files, saved.size)
        sent = size if saved is None or not is_save else round(size * chance.choice([0, 0, 0.01, 0.04, 0.3]))
        run = self._row(hold, spec, direction, trigger, at, took, by, files, size, sent)
        self._tell(run, hold, "sync.completed", {"files": files, "bytes": size, "sentBytes": sent, "deleted": 0})
        if is_save:
            if sent and saved is not None and chance.random() < 0.25:
                self._backup(hold, spec, at, round(sent * 0.8) + 1)
            self.saved[hold.tenant] = Saved(run.pk, at + took, files, size, hold.generation)
        return run

    def refused(self, hold: Hold, spec: DemoSpec, at: datetime) -> SyncRun:
        """A save that the sink refused."""
        trigger, took = Trigger.RELEASE, timedelta(milliseconds=480)
        run = self._row(hold, spec, Direction.UPLOAD, trigger, at, took, GATEWAY, 0, 0, 0)
        run.error_code, run.error_detail, run.steps = "denied", REFUSAL, []
        run.state = SyncRunState.FAILED
        self._tell(run, hold, "sync.failed", {"code": "denied", "detail": REFUSAL})
        return run

    def _row(
        self, hold: Hold, spec: DemoSpec, direction: Direction, trigger: Trigger, at: datetime, took: timedelta,
        by: str, files: int, size: int, sent: int,
    ) -> SyncRun:  # fmt: skip
        location = self.mappings[spec.id].location(hold.tenant)
        step = {"containerPath": "/state", "location": location, "files": files, "bytes": size, "transferred": sent}
        return self.rows.add(
            SyncRun, id=self.rows.uuid(at), spec=self.specs[spec.id], tenant_id=hold.tenant,
            container_id=hold.container, generation=hold.generation, direction=direction, trigger=trigger,
            state=SyncRunState.SUCCEEDED, steps=[step], asked_by=by, created_at=at,
            progress={"files": files, "bytes": size, "sentBytes": sent},
            started_at=at + timedelta(milliseconds=40), finished_at=at + took,
        )  # fmt: skip

    def _tell(self, run: SyncRun, hold: Hold, type: str, payload: dict[str, Any]) -> None:
        shared = {"direction": run.direction, "trigger": run.trigger, "runId": str(run.pk), "specId": run.spec_id}
        about = {"pool_id": hold.pool.id, "container_id": hold.container, "tenant_id": hold.tenant}
        actor = run.asked_by or "system"
        assert run.started_at is not None
        assert run.finished_at is not None
        self.rows.event("sync.started", run.started_at, actor=actor, **about, payload=shared)
        more = {"is_routine": True} if is_unchanged(run) else {}
        self.rows.event(type, run.finished_at, actor=actor, **about, **more, payload={**shared, **payload})

    def _backup(self, hold: Hold, spec: DemoSpec, at: datetime, size: int) -> None:
        mapping = self.mappings[spec.id]
        location = mapping.location(hold.tenant)
        self.rows.add(
            Backup, id=self.rows.uuid(at), tenant_id=hold.tenant, spec=self.specs[spec.id],
            place=self.specs[spec.id].place["spelled"], location=location, container_path="/state",
            backup=f".boilerhouse/backups/{location}{at:%Y%m%dT%H%M%S}/", files=1 + size % 9, bytes=size,
            created_at=at,
        )  # fmt: skip

    def claimed_between(self, pool_id: str) -> list[tuple[datetime, datetime]]:
        """When the pool's containers were in use."""
        later = self.rows.now + timedelta(days=1)
        return [(hold.start, hold.end or later) for hold in self.holds if hold.pool.id == pool_id]


def _made_at(container: UUID) -> datetime:
    from datetime import UTC

    return datetime.fromtimestamp((container.int >> 80) / 1000, UTC)
