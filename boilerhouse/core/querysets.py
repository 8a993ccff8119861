"""Querysets of models that belong to the whole deployment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import models

from boilerhouse.core.states import TRANSITIONS, NodeState

if TYPE_CHECKING:
    from boilerhouse.core.models import Node  # noqa: F401  # ruff does not read QuerySet["…"]


class NodeQuerySet(models.QuerySet["Node"]):
    def transition(self, source: NodeState, target: NodeState, **changes: Any) -> int:
        """Move matching rows from ``source`` to ``target``. Returns how many moved."""
        assert target in TRANSITIONS[source], f"{source} -> {target}"
        return self.filter(state=source).update(state=target, **changes)
