"""States of models that belong to the whole deployment."""

from __future__ import annotations

from django.db.models import TextChoices


class NodeState(TextChoices):
    """Whether a node has a living worker."""

    ACTIVE = "active"
    SILENT = "silent"
    """No heartbeat for a while: its tasks wait, and no other node runs them."""


TRANSITIONS = {
    NodeState.ACTIVE: {NodeState.SILENT},
    NodeState.SILENT: {NodeState.ACTIVE},
}
