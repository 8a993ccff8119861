"""The vocabulary of the rows that belong to the deployment as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import models

from boilerhouse.core.states import TRANSITIONS, NodeState

if TYPE_CHECKING:
    from boilerhouse.core.models import Node  # noqa: F401  # ruff does not look into QuerySet["…"]


class NodeQuerySet(models.QuerySet["Node"]):
    def transition(self, source: NodeState, target: NodeState, **changes: Any) -> int:
        """Move matching rows from ``source`` to ``target``; return how many moved."""
        assert target in TRANSITIONS[source], f"{source} -> {target}"
        return self.filter(state=source).update(state=target, **changes)
