"""Querysets of containers, image pulls and pools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from django.db import connection, models
from django.db.models import Count, F, Q
from django.db.models.functions import Now

from boilerhouse.core.deployment import node_id
from boilerhouse.core.models import Node
from boilerhouse.core.querysets import SUSPECT_AFTER
from boilerhouse.core.states import NodeState
from pools.states import PULL_TRANSITIONS, TRANSITIONS, ContainerHealth, ContainerState, PullState

if TYPE_CHECKING:
    from pools.models import Container, HostLease, ImagePull, Pool  # noqa: F401  # ruff does not read QuerySet["…"]

_TAKE = """
UPDATE {table} SET state = %s, state_changed_at = {now} WHERE state = %s AND id = (
    SELECT id FROM {table} WHERE pool_id = %s AND state = %s AND health <> %s AND {where}
    ORDER BY state_changed_at, id LIMIT 1 {skip}
) RETURNING {columns}
"""
_HERE = "node = %s"
_ELSEWHERE = "node <> %s AND node IN (SELECT id FROM {nodes} WHERE state = %s AND heartbeat_at >= {since})"
_TIME = {
    "postgresql": "now() - make_interval(secs => {ago})",
    "sqlite": "strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now', '-{ago} seconds')",
}
"""So many seconds ago, by the database's clock."""


class ContainerQuerySet(models.QuerySet["Container"]):
    def idle(self) -> Self:
        return self.filter(state=ContainerState.IDLE)

    def here(self) -> Self:
        """Rows of this node, whose engine and directories are here."""
        return self.filter(node_id=node_id())

    def transition(self, source: ContainerState, target: ContainerState, **changes: Any) -> int:
        """Move matching rows from ``source`` to ``target``. Returns how many moved."""
        assert target in TRANSITIONS[source], f"{source} -> {target}"
        return self.filter(state=source).update(state=target, state_changed_at=Now(), **changes)

    def take(self, pool: Pool) -> Container | None:
        """Claim the longest idle container of this node, or else of another node that is alive, and return it; None if
        there is none.

        Each is one conditional statement: however many processes run it, each container is returned once. The first
        need not ask whether the node is alive: this process is there, and can do most of the claim itself.
        """
        return self._take(pool, _HERE, [node_id()]) or self._take(pool, _ELSEWHERE, [node_id(), NodeState.ACTIVE])

    def _take(self, pool: Pool, where: str, where_parameters: list[str]) -> Container | None:
        time = _TIME[connection.vendor]
        sql = _TAKE.format(
            table=self.model._meta.db_table,
            now=time.format(ago=0),
            where=where.format(nodes=Node._meta.db_table, since=time.format(ago=int(SUSPECT_AFTER.total_seconds()))),
            skip="FOR UPDATE SKIP LOCKED" if connection.vendor == "postgresql" else "",
            # Columns by name: a statement prepared by PostgreSQL must keep working after a migration that adds one.
            columns=", ".join(f'"{field.column}"' for field in self.model._meta.concrete_fields),
        )
        idle = ContainerState.IDLE
        parameters = [ContainerState.CLAIMED, idle, pool.pk, idle, ContainerHealth.UNHEALTHY, *where_parameters]
        return next(iter(self.model.objects.raw(sql, parameters)), None)


class HostLeaseQuerySet(models.QuerySet["HostLease"]):
    def here(self) -> Self:
        """Rows of this node, and rows without a node, which are from the time of a single node."""
        return self.filter(Q(node_id=node_id()) | Q(node_id=None))


class ImagePullQuerySet(models.QuerySet["ImagePull"]):
    def transition(self, source: PullState, target: PullState, **changes: Any) -> int:
        """Move matching rows from ``source`` to ``target``. Returns how many moved."""
        assert target in PULL_TRANSITIONS[source], f"{source} -> {target}"
        return self.filter(state=source).update(state=target, **changes)


class PoolQuerySet(models.QuerySet["Pool"]):
    def with_counts(self) -> Self:
        """Annotate the number of containers by state, of those that run another image than their version, and of starts
        that wait for a pull. One query, which also loads the pull whose failure affects the pool."""
        counted = {
            f"{state.value}_count": Count("containers", filter=Q(containers__state=state)) for state in ContainerState
        }
        unhealthy = Count("containers", filter=Q(containers__health=ContainerHealth.UNHEALTHY))
        runs, should = F("containers__image_digest"), "containers__version__image_digest"
        warm = Q(containers__state__in=[ContainerState.IDLE, ContainerState.CLAIMED])
        strays = Count(
            "containers", filter=warm & ~Q(containers__image_digest="") & ~Q(**{f"{should}__in": ["", runs]})
        )
        pulls = Count("containers", filter=Q(containers__state=ContainerState.STARTING, containers__pull__isnull=False))
        counts = self.annotate(**counted, unhealthy_count=unhealthy, stray_count=strays, pull_count=pulls)
        return counts.select_related("failed_pull")
