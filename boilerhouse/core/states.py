"""States of models that belong to the whole deployment."""

from __future__ import annotations

from django.db.models import TextChoices


class NodeState(TextChoices):
    """Whether a node has a living worker, or was given up."""

    ACTIVE = "active"
    SILENT = "silent"
    """No heartbeat for a while: its tasks wait, and no other node runs them."""
    LOST = "lost"
    """Given up: what it had is no longer counted, and its tenants claim elsewhere. It gets nothing until it has removed
    its old containers."""


TRANSITIONS = {
    NodeState.ACTIVE: {NodeState.SILENT},
    NodeState.SILENT: {NodeState.ACTIVE, NodeState.LOST},
    NodeState.LOST: {NodeState.ACTIVE},
}
