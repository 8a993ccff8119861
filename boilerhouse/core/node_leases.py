"""Leases of nodes: who cannot renew its lease stops its containers before others may give it up (ADR 101).

All times in seconds are since the last renewal that the database confirmed: by the node's own clock for what the node
does, by the database's for what others do. The node's count began earlier, because it is taken before asking.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from django.db.models import BooleanField, ExpressionWrapper, F, Q, QuerySet
from django.db.models.functions import Coalesce, Now

from boilerhouse.core import compiled, node_loss
from boilerhouse.core.compiled import Compiled
from boilerhouse.core.models import Node
from boilerhouse.core.querysets import is_alive
from boilerhouse.core.states import NodeState

RENEW_S = 2.0
FRESH_S = 5
"""Whose lease is younger than this reaches the database."""
ASK_S = 8.0
"""After so long without a renewal, a node asks the others whether they reach the database. Who has not for this long
says no."""
FREEZE_S = 10.0
"""By then its containers stand still, unless most nodes say no."""
WORD_S = 3.0
"""How long the others' word holds."""
STEADY_S = 13.0
"""A node is given up only by a controller that has seen most nodes renew their leases for so long. Longer than it takes
a node to hear that another reaches the database again, and to freeze."""
BLIND_S = 5.0
"""A controller that has not looked for so long has seen nothing."""
LEASE_S = 25
"""After so long without a renewal, a node may be given up."""
UNFENCED_S = 6
"""If a worker outlives its node's fence by this, nothing says that the containers will stop."""


def renew(node_id: str, epoch: int, address: str, peers: list[str]) -> bool:
    """Whether the node has its lease for ``LEASE_S`` from now: it is not lost, and this is its epoch.

    ``peers`` are the other nodes by whose word it judges an outage from now on.
    """
    rows = Node.objects.filter(pk=node_id, epoch=epoch).exclude(state=NodeState.LOST)
    return bool(
        rows.update(
            leased_at=Now(), leased_since=Coalesce("leased_since", Now()), fence_address=address, fence_peers=peers
        )
    )


def epoch_of(node_id: str) -> int | None:
    """The epoch in which the node may take a lease; None while it is lost or has no row."""
    rows = Node.objects.filter(pk=node_id).exclude(state=NodeState.LOST)
    return rows.values_list("epoch", flat=True).first()


def give_back(node_id: str, epoch: int) -> bool:
    """The node has no fence from now on, so it is never given up without an operator's word. False if it has been given
    up already."""
    rows = Node.objects.filter(pk=node_id, epoch=epoch).exclude(state=NodeState.LOST)
    return bool(rows.update(leased_at=None, leased_since=None, fence_peers=[]))


def peers_of(node_id: str) -> dict[str, str]:
    """The other nodes with a lease, and where their fences are asked; empty if nowhere."""
    rows = Node.objects.exclude(pk=node_id).exclude(state=NodeState.LOST).exclude(leased_at=None)
    return dict(rows.order_by("pk").values_list("pk", "fence_address"))


class Expiry:
    """Gives up nodes whose lease is over. It remembers what it has seen, so one process keeps one."""

    def __init__(self) -> None:
        self._looked_at = float("-inf")
        self._steady_since: dict[str, float] = {}
        """Node → since when most of those by whose word it judges have renewed their leases at each look."""

    def look(self) -> int:
        """Give up nodes whose containers stand still by now. Returns how many. Raises what the database does."""
        began = time.monotonic()
        if began - self._looked_at > BLIND_S:
            self._steady_since.clear()
        self._looked_at = began
        if not _any_overdue().exists():
            self._steady_since.clear()
            return 0
        rows = list(_judged())
        fresh = {row.pk for row in rows if row.is_fresh}  # type: ignore[attr-defined]
        return sum(self._judge(row, fresh, began) for row in rows if row.pk not in fresh and row.leased_at)

    def _judge(self, row: Node, fresh: set[str], began: float) -> bool:
        members = {row.pk, *row.fence_peers}
        if 2 * len(members & fresh) < len(members):
            self._steady_since.pop(row.pk, None)
            return False
        since = self._steady_since.setdefault(row.pk, began)
        is_over: bool = row.is_over  # type: ignore[attr-defined]
        if not is_over or began - since < STEADY_S:
            return False
        return node_loss.declare_expired(row.pk, _over())


def _before(seconds: float) -> Any:
    return Now() - timedelta(seconds=seconds)


def _overdue() -> Q:
    return ~Q(state=NodeState.LOST) & Q(leased_at__lt=_before(FRESH_S))


@compiled.cached
def _any_overdue() -> Compiled:
    return compiled.selection(Node.objects.filter(_overdue()).order_by().values_list("pk")[:1])


def _over() -> Q:
    return Q(
        state=NodeState.SILENT, leased_at__lt=_before(LEASE_S),
        heartbeat_at__lt=F("leased_at") + timedelta(seconds=UNFENCED_S),
    )  # fmt: skip


def _judged() -> QuerySet[Node]:
    """All nodes: whether each reaches the database, and whether its lease is over, with a worker that fell silent no
    later than its fence."""
    fresh = Q(leased_at__gte=_before(FRESH_S)) & ~Q(state=NodeState.LOST)
    flag = BooleanField()
    return Node.objects.annotate(
        is_fresh=ExpressionWrapper(fresh, output_field=flag), is_over=ExpressionWrapper(_over(), output_field=flag)
    )


def is_unfenced() -> Q:
    """Nodes whose fence has stopped to renew the lease while a worker there is alive."""
    return is_alive() & Q(leased_at__lt=_before(LEASE_S))
