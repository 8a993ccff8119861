"""Querysets of models that belong to the whole deployment."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from boilerhouse.core.states import TRANSITIONS, NodeState

if TYPE_CHECKING:
    from boilerhouse.core.models import Node  # noqa: F401  # ruff does not read QuerySet["…"]


SILENT_AFTER = timedelta(seconds=15)
"""Long enough for a worker to restart."""
SUSPECT_AFTER = timedelta(seconds=8)
"""Without a heartbeat for so long, a node gets no containers, and others do not use its idle ones."""


def is_alive() -> Q:
    """Nodes that get containers, and whose idle ones others use, as far as heartbeats tell."""
    return Q(state=NodeState.ACTIVE, heartbeat_at__gte=Now() - SUSPECT_AFTER)


def without_heartbeat() -> Q:
    """Nodes without a living worker that are not given up."""
    return Q(heartbeat_at__lt=Now() - SILENT_AFTER) & ~Q(state=NodeState.LOST)


class NodeQuerySet(models.QuerySet["Node"]):
    def with_engine(self) -> NodeQuerySet:
        """Those that have reported an engine that answers."""
        return self.filter(engine_error="").exclude(reported_at=None)

    def transition(self, source: NodeState, target: NodeState, **changes: Any) -> int:
        """Move matching rows from ``source`` to ``target``. Returns how many moved."""
        assert target in TRANSITIONS[source], f"{source} -> {target}"
        return self.filter(state=source).update(state=target, **changes)
