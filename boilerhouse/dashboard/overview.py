"""The content of the overview, read with a handful of queries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest

from boilerhouse.attention.cause import Cause
from boilerhouse.dashboard import badges, comparison, failures, feeds, needs, rolls, sparklines
from boilerhouse.dashboard.bounded_counts import up_to
from boilerhouse.notifications import incidents
from pools.models import Pool, PoolStatus
from pools.states import PoolState
from syncing.models import SyncRun
from tenants import claim_times
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
    def needs_attention(self) -> bool:
        return self.badge.tone in ("warn", "error")

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


def pool_rows() -> list[PoolRow]:
    pools = Pool.objects.with_counts().select_related("workload", "failed_pull")
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


def tiles(rows: list[PoolRow], present: list[Cause]) -> dict[str, Any]:
    tenants = {
        "assigned": Assignment.objects.filter(state=AssignmentState.ASSIGNED).count(),
        "unsaved": sum(len(cause.unsaved) for cause in present),
    }
    failed = failures.of_last_day()
    runs = {
        "running": up_to(SyncRun.objects.running()),
        "failures": failed,
        "done": up_to(SyncRun.objects.succeeded().filter(finished_at__gte=failed.since)),
    }
    times = claim_times.of_last_hour()
    return {
        "pools": len(rows),
        "troubled": sum(row.needs_attention for row in rows),
        "size": sum(row.status.size for row in rows),
        "max": sum(row.pool.max_size for row in rows),
        "claimed": sum(row.status.claimed for row in rows),
        "idle": sum(row.status.idle for row in rows),
        "starting": sum(row.status.starting for row in rows),
        "held": tenants,
        "runs": runs,
        "p50": times.p50_ms,
        "p99": times.p99_ms,
        "claims": times.count,
    }


def overview(request: HttpRequest) -> dict[str, Any]:
    """Everything on the page."""
    rows = pool_rows()
    present = incidents.present([(row.pool, row.status) for row in rows])
    return {
        "rows": rows,
        "needs": needs.of(present, request),
        "tiles": tiles(rows, present),
        "events": feeds.newest(),
        "weeks": comparison.of(),
    }
