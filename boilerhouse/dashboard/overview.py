"""The content of the overview, read with a handful of queries."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db.models import Count, Q
from django.urls import reverse

from boilerhouse.core import clock, nodes
from boilerhouse.core.events import PROGRESS
from boilerhouse.core.models import Event, FailingStep
from boilerhouse.dashboard import sparks, tones
from boilerhouse.dashboard.counting import up_to
from boilerhouse.dashboard.templatetags.ui import short
from boilerhouse.queues.silence import silent_queues
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
ACTIVITY = 20


@dataclass(frozen=True, slots=True)
class Bar:
    kind: str
    x: int
    width: int


@dataclass(frozen=True, slots=True)
class PoolRow:
    pool: Pool
    status: PoolStatus
    spark: sparks.Spark = sparks.NOTHING

    @property
    def said(self) -> tones.Said:
        return tones.pool(self.status)

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
        found, x = [], 0
        for kind, width in (("cl", self.status.claimed), ("id", self.status.idle), ("st", self.status.starting)):
            found.append(Bar(kind, x, width))
            x += width
        return found


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
    found = sparks.of_pools({pool.pk: pool.max_size for pool in pools})
    rows = [PoolRow(pool, pool.status(), found.get(pool.pk, sparks.NOTHING)) for pool in pools]
    return sorted(rows, key=lambda row: (WORST_FIRST.index(row.status.state), row.pool.pk))


def pool_needs(rows: list[PoolRow]) -> list[Need]:
    """Issues of these pools: conditions, waiting claims, unhealthy claimed containers."""
    found = []
    for row in rows:
        link = reverse("pool", args=[row.pool.pk])
        if row.status.trouble == Trouble.UNSTABLE:
            found.append(
                Need("error", "Containers of {} fail repeatedly", row.pool.pk, link, row.status.last_error or "")
            )
        elif row.status.state == PoolState.ERROR:
            found.append(Need("error", "{} cannot start containers", row.pool.pk, link, row.status.last_error or ""))
        elif row.status.trouble == Trouble.ROLL_HALTED:
            found.append(
                Need("warn", "{} stopped rolling to the new version", row.pool.pk, link, row.status.last_error or "")
            )
        elif row.status.trouble:
            found.append(Need("error", "{} cannot start containers", row.pool.pk, link, row.status.last_error or ""))
        elif row.pool.stale_image:
            found.append(Need("warn", "{} runs an older image", row.pool.pk, link, row.pool.stale_image))
        elif row.status.state == PoolState.EXHAUSTED and row.status.waiting:
            why = f"{row.status.waiting} claims are waiting. All {row.pool.max_size} containers are in use."
            found.append(Need("warn", "{} has no idle container", row.pool.pk, link, why))
    pools = [row.pool.pk for row in rows if row.status.unhealthy]
    if pools:
        ill = Container.objects.filter(pool_id__in=pools, health="unhealthy", state=ContainerState.CLAIMED)
        for one in ill.order_by("state_changed_at")[:20]:
            link = reverse("container", args=[one.pk])
            why = f"{one.error} Release saves the state; the next claim gets a new container."
            found.append(Need("error", "Claimed container {} is unhealthy", short(str(one.pk)), link, why))
    return found


def needs(rows: list[PoolRow]) -> list[Need]:
    found = []
    failed = Assignment.objects.filter(state=AssignmentState.RELEASE_FAILED).order_by("state_changed_at")[:20]
    for held in failed:
        why = f"{held.outcome_detail} {held.whereabouts} Attempts: {held.attempt + 1}."
        link = reverse("tenant", args=[held.tenant_id])
        found.append(Need("error", "State of {} is not saved", held.tenant_id, link, why))
    found += pool_needs(rows)
    for name, seconds in silent_queues().items():
        why = f"No worker has served it for {seconds} s although one is running. See the worker's log."
        found.append(Need("error", "Queue {} is not served", name, reverse("admin:core_queuehealth_changelist"), why))
    waiting = nodes.waiting_tasks()
    for node, seconds in nodes.silent().items():
        tasks = f"{waiting[node]} tasks are waiting" if waiting.get(node) else "Its work is waiting"
        why = f"No heartbeat from its workers for {seconds} s. {tasks}: no other node can do it."
        found.append(Need("error", "Node {} has no worker", node, reverse("admin:core_node_changelist"), why))
    for step in FailingStep.objects.order_by("since"):
        why = f"{step.error}: {step.detail.rstrip('.')}. It is retried; the other steps continue."
        found.append(Need("error", "Step {} is failing", step.name, reverse("settings"), why))
    return found + sync_needs()


def sync_needs() -> list[Need]:
    """Issues of saves: overdue ones, and unhealthy sinks."""
    found = _overdue_saves()
    for spec in SyncSpec.objects.filter(Q(sink_health__state="unhealthy") | Q(place_state__in=tones.REFUSED)):
        link = reverse("sync-spec", args=[spec.pk])
        is_refused = PlaceState(spec.place_state) in tones.REFUSED
        what = "{} is blocked" if is_refused else "The sink of {} is unhealthy"
        found.append(Need("error", what, spec.pk, link, tones.sink_detail(spec)))
    return found


def _overdue_saves() -> list[Need]:
    """One per sync spec: how many of its tenants wait for a save, and the age of the oldest (P13)."""
    now = clock.now()
    late: dict[str, list[syncs.Beat]] = {}
    for beat in syncs.beats():
        if beat.is_overdue(now):
            late.setdefault(beat.spec.pk, []).append(beat)
    found = []
    for spec_id, beats in sorted(late.items()):
        oldest = min(beats, key=lambda beat: beat.unsaved_since)
        minutes = round((now - oldest.unsaved_since).total_seconds() / 60)
        who = oldest.assignment.tenant_id if len(beats) == 1 else f"{len(beats)} tenants"
        why = f"{who} would lose changes of the last {minutes} min if the node were lost now."
        link = reverse("sync-spec", args=[spec_id])
        found.append(Need("warn", "Saves of {} are overdue", spec_id, link, why))
    return found


def tiles(rows: list[PoolRow]) -> dict[str, Any]:
    day = clock.now() - timedelta(hours=24)
    held = Assignment.objects.aggregate(
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
        "troubled": sum(row.said.tone in ("warn", "error") for row in rows),
        "size": sum(row.status.size for row in rows),
        "max": sum(row.pool.max_size for row in rows),
        "claimed": sum(row.status.claimed for row in rows),
        "idle": sum(row.status.idle for row in rows),
        "starting": sum(row.status.starting for row in rows),
        "held": held,
        "runs": runs,
        "p50": times.p50_ms,
        "p99": times.p99_ms,
        "claims": times.count,
    }


def activity() -> list[Event]:
    return list(Event.objects.exclude(type__in=["container.created", *PROGRESS])[:ACTIVITY])


def overview() -> dict[str, Any]:
    """Everything on the page."""
    rows = pool_rows()
    return {"rows": rows, "needs": needs(rows), "tiles": tiles(rows), "events": activity()}
