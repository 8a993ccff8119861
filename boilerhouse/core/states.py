"""States of the rows that belong to the deployment as a whole."""

from __future__ import annotations

from django.db.models import TextChoices


class NodeState(TextChoices):
    """Whether a node's worker is alive."""

    ACTIVE = "active"
    SILENT = "silent"
    """No worker of it has been heard of for a while: its tasks wait, and nobody else carries them out."""


TRANSITIONS = {
    NodeState.ACTIVE: {NodeState.SILENT},
    NodeState.SILENT: {NodeState.ACTIVE},
}
