"""The nodes as rows show them to one decision about new containers of a pool, and what it has placed so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from django.conf import settings
from django.db import connection
from django.db.models import BooleanField, ExpressionWrapper

from boilerhouse.core import compiled
from boilerhouse.core.compiled import Compiled
from boilerhouse.core.models import Node
from boilerhouse.core.querysets import is_alive
from pools import capacity, host
from pools.models import Container, Pool, WorkloadVersion
from pools.nodes import here
from pools.placement import Candidate, Need, Refused, Rules, choose

_LOCK = 0x706C6163


class PlacementRound:
    """Places containers of one pool one after another, in the transaction that inserts their rows.

    The pool's row is locked. What other pools' containers are promised changes only under the placement lock, which is
    held to the end of the transaction, so two decisions never promise the same memory.
    """

    def __init__(self, pool: Pool, members: Iterable[Container]) -> None:
        self._rules = Rules.from_json(pool.placement)
        of_pool = Counter(member.node_id for member in members)
        rows = _nodes().instances(Node)
        self._nodes = {row.pk: _candidate(row, of_pool[row.pk]) for row in rows}
        if len(rows) > 1 or any(row.overcommit is not None for row in rows):  # else the sums decide nothing
            _lock()
            promised = capacity.promised()
            self._nodes = {id: replace(node, promised=promised[id]) for id, node in self._nodes.items()}

    def place(self, version: WorkloadVersion) -> str | Refused:
        """The id of the node for another container of this version, which counts from now on."""
        need = Need(capacity.of_version(version), version.spec.security.runtime)
        node = choose(self._nodes.values(), need, self._rules)
        if isinstance(node, Refused):
            return node
        self._nodes[node.id] = replace(node, promised=node.promised + need.promised, of_pool=node.of_pool + 1)
        return node.id


@compiled.cached
def _nodes() -> Compiled:
    alive = ExpressionWrapper(is_alive(), output_field=BooleanField())
    return compiled.selection(Node.objects.annotate(is_alive=alive).order_by("pk"))


def _candidate(row: Node, of_pool: int) -> Candidate:
    """The deciding process's own node is alive unless it is lost, and its disk is known at first hand."""
    is_here = row.pk == here().id
    floor = int(settings.BOILERHOUSE_DISK_FLOOR_MB)
    reported = row.disk_free_mb is None or row.disk_free_mb >= floor
    return Candidate(
        id=row.pk, is_alive=(is_here and not row.is_lost) or bool(row.is_alive),  # type: ignore[attr-defined]
        is_cordoned=row.is_cordoned, is_here=is_here, has_engine=is_here or not row.engine_error,
        has_disk=not host.disk_is_low() if is_here else reported, labels=row.labels,
        runtimes=frozenset(row.runtimes), cpus=row.cpus, memory_mb=row.memory_mb, overcommit=row.overcommit,
        of_pool=of_pool,
    )  # fmt: skip


def _lock() -> None:
    """Held until the end of the transaction. SQLite lets one transaction write at a time anyway."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
