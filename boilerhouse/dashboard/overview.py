"""The content of the overview, read with a handful of queries."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db.models import Count, Q
from django.urls import reverse

from boilerhouse.core import clock, nodes
from boilerhouse.core.models import FailingStep
from boilerhouse.dashboard import badges, feeds, rolls, sparklines
from boilerhouse.dashboard.bounded_counts import up_to
from boilerhouse.dashboard.templatetags.ui import short
from boilerhouse.queues.service import unserved_queues
from pools.models import Container, Pool, PoolStatus
from pools.states import ContainerState, PoolState, Trouble
from syncing.models import SyncRun, SyncSpec
from syncing.states import PlaceState
from tenants import claim_times, syncs
from tenants.models import Assignment
from tenants.states import AssignmentState

WORST_FIRST = [
    PoolState.ERROR, PoolState.EXHAUSTED, PoolState.DEGRADED, PoolState.DRAINING, PoolState.PAUSED, PoolState.HEALTHY,
]  # fmt: skip
MAX_CELLS = 40


@dataclass(frozen=True, slots=True)
class Bar:
    kind: str
    x: int
    width: int


@dataclass(frozen=True, slots=True)
class PoolRow:
    pool: Pool
    status: PoolStatus
    spark: sparklines.Sparkline = sparklines.NOTHING
    roll: rolls.Roll | None = None
    claims: claim_times.PoolClaims = claim_times.NO_CLAIMS

    @property
    def badge(self) -> badges.Badge:
        return badges.pool(self.status)

    @property
    def cells(self) -> list[str]:
        """One class per slot: claimed, idle, starting, removing, free. Empty if there are too many to draw."""
        status = self.status
        if self.pool.max_size > MAX_CELLS:
            return []
        used = ["cl"] * status.claimed + ["id"] * status.idle + ["st"] * status.starting + ["rm"] * status.removing
        used += [""] * (self.pool.max_size - len(used))
        for position in range(min(status.unhealthy, status.claimed)):
            used[status.claimed - 1 - position] = "un"
        return used

    @property
    def bars(self) -> list[Bar]:
        """The same as bars, for pools with too many slots."""
        bars, x = [], 0
        for kind, width in (("cl", self.status.claimed), ("id", self.status.idle), ("st", self.status.starting)):
            bars.append(Bar(kind, x, width))
            x += width
        return bars


@dataclass(frozen=True, slots=True)
class Need:
    """An issue that needs attention: what, why, and where to go."""

    tone: str
    what: str
    subject: str
    link: str
    why: str


def pool_rows() -> list[PoolRow]:
    pools = Pool.objects.with_counts().select_related("workload")
    by_pool = sparklines.of_pools({pool.pk: pool.max_size for pool in pools})
    rolling, claims = rolls.of_pools(list(pools)), claim_times.by_pool()
    rows = [
        PoolRow(
            pool, pool.status(), by_pool.get(pool.pk, sparklines.NOTHING), rolling.get(pool.pk),
            claims.get(pool.pk, claim_times.NO_CLAIMS),
        )
        for pool in pools
    ]  # fmt: skip
    return sorted(rows, key=lambda row: (WORST_FIRST.index(row.status.state), row.pool.pk))


def pool_needs(rows: list[PoolRow]) -> list[Need]:
    """Issues of these pools: conditions, waiting claims, unhealthy claimed containers."""
    results = []
    for row in rows:
        link = reverse("pool", args=[row.pool.pk])
        if row.status.trouble == Trouble.UNSTABLE:
            results.append(
                Need("error", "Containers of {} fail repeatedly", row.pool.pk, link, row.status.last_error or "")
            )
        elif row.status.state == PoolState.ERROR:
            results.append(Need("error", "{} cannot start containers", row.pool.pk, link, row.status.last_error or ""))
        elif row.status.trouble == Trouble.ROLL_HALTED:
            results.append(
                Need("warn", "{} stopped rolling to the new version", row.pool.pk, link, row.status.last_error or "")
            )
        elif row.status.trouble:
            results.append(Need("error", "{} cannot start containers", row.pool.pk, link, row.status.last_error or ""))
        elif row.pool.stale_image:
            results.append(Need("warn", "{} runs an older image", row.pool.pk, link, row.pool.stale_image))
        elif row.status.state == PoolState.EXHAUSTED and row.status.waiting:
            why = f"{row.status.waiting} claims are waiting. All {row.pool.max_size} containers are in use."
            results.append(Need("warn", "{} has no idle container", row.pool.pk, link, why))
    pools = [row.pool.pk for row in rows if row.status.unhealthy]
    if pools:
        ill = Container.objects.filter(pool_id__in=pools, health="unhealthy", state=ContainerState.CLAIMED)
        for container in ill.order_by("state_changed_at")[:20]:
            link = reverse("container", args=[container.pk])
            why = f"{container.error} Release saves the state; the next claim gets a new container."
            results.append(Need("error", "Claimed container {} is unhealthy", short(str(container.pk)), link, why))
    return results


def needs(rows: list[PoolRow]) -> list[Need]:
    results = []
    failed = Assignment.objects.filter(state=AssignmentState.RELEASE_FAILED).order_by("state_changed_at")[:20]
    for assignment in failed:
        why = f"{assignment.outcome_detail} {assignment.whereabouts} Attempts: {assignment.attempt + 1}."
        link = reverse("tenant", args=[assignment.tenant_id])
        results.append(Need("error", "State of {} is not saved", assignment.tenant_id, link, why))
    results += pool_needs(rows)
    for name, seconds in unserved_queues().items():
        why = f"No worker has served it for {seconds} s although one is running. See the worker's log."
        results.append(Need("error", "Queue {} is not served", name, reverse("admin:core_queuehealth_changelist"), why))
    waiting = nodes.waiting_tasks()
    for node, seconds in nodes.silent().items():
        tasks = f"{waiting[node]} tasks are waiting" if waiting.get(node) else "Its work is waiting"
        why = f"No heartbeat from its workers for {seconds} s. {tasks}: no other node can do it."
        results.append(Need("error", "Node {} has no worker", node, reverse("admin:core_node_changelist"), why))
    for step in FailingStep.objects.order_by("since"):
        why = f"{step.error}: {step.detail.rstrip('.')}. It is retried; the other steps continue."
        results.append(Need("error", "Step {} is failing", step.name, reverse("settings"), why))
    return results + sync_needs()


def sync_needs() -> list[Need]:
    """Issues of saves: overdue ones, and unhealthy sinks."""
    results = _overdue_saves()
    for spec in SyncSpec.objects.filter(Q(sink_health__state="unhealthy") | Q(place_state__in=badges.REFUSED)):
        link = reverse("sync-spec", args=[spec.pk])
        is_refused = PlaceState(spec.place_state) in badges.REFUSED
        what = "{} is blocked" if is_refused else "The sink of {} is unhealthy"
        results.append(Need("error", what, spec.pk, link, badges.sink_detail(spec)))
    return results


def _overdue_saves() -> list[Need]:
    """One per sync spec: how many of its tenants wait for a save, and the age of the oldest (P13)."""
    now = clock.now()
    late: dict[str, list[syncs.PeriodicSave]] = {}
    for beat in syncs.periodic_saves():
        if beat.is_overdue(now):
            late.setdefault(beat.spec.pk, []).append(beat)
    results = []
    for spec_id, periodic_saves in sorted(late.items()):
        oldest = min(periodic_saves, key=lambda beat: beat.unsaved_since)
        minutes = round((now - oldest.unsaved_since).total_seconds() / 60)
        who = oldest.assignment.tenant_id if len(periodic_saves) == 1 else f"{len(periodic_saves)} tenants"
        why = f"{who} would lose changes of the last {minutes} min if the node were lost now."
        link = reverse("sync-spec", args=[spec_id])
        results.append(Need("warn", "Saves of {} are overdue", spec_id, link, why))
    return results


def tiles(rows: list[PoolRow]) -> dict[str, Any]:
    day = clock.now() - timedelta(hours=24)
    counts = Assignment.objects.aggregate(
        assigned=Count("pk", filter=Q(state=AssignmentState.ASSIGNED)),
        failed=Count("pk", filter=Q(state=AssignmentState.RELEASE_FAILED)),
    )
    recent_runs = SyncRun.objects.filter(created_at__gt=day)
    runs = {
        "running": up_to(SyncRun.objects.running()),
        "failed": up_to(recent_runs.failed()),
        "done": up_to(recent_runs.succeeded()),
    }
    times = claim_times.of_last_hour()
    return {
        "pools": len(rows),
        "troubled": sum(row.badge.tone in ("warn", "error") for row in rows),
        "size": sum(row.status.size for row in rows),
        "max": sum(row.pool.max_size for row in rows),
        "claimed": sum(row.status.claimed for row in rows),
        "idle": sum(row.status.idle for row in rows),
        "starting": sum(row.status.starting for row in rows),
        "held": counts,
        "runs": runs,
        "p50": times.p50_ms,
        "p99": times.p99_ms,
        "claims": times.count,
    }


def overview() -> dict[str, Any]:
    """Everything on the page."""
    rows = pool_rows()
    return {"rows": rows, "needs": needs(rows), "tiles": tiles(rows), "events": feeds.newest()}
