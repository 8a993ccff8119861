"""Declares nodes lost. From then on the rows of a node's containers are settled elsewhere (``tenants.node_losses``).

Two machines must never run a tenant at once (P1). So a node is declared lost only when something vouches that its
containers do not run: an operator who says that the machine is off.
"""

from __future__ import annotations

from typing import Any

from django.db.models import F
from django.db.models.functions import Now
from django_q.models import OrmQ

from boilerhouse.core import audit, clock, context, node_changes, nodes
from boilerhouse.core.errors import Conflict
from boilerhouse.core.events import emit, recording
from boilerhouse.core.models import Node
from boilerhouse.core.querysets import SILENT_AFTER
from boilerhouse.core.states import NodeState


class NodeAlive(Conflict):
    """A worker of the node has given a sign of life within the last 15 seconds."""

    code = "node_alive"


class NodeMayRun(Conflict):
    """Nothing says that the node's containers have stopped: cut its power, and say that it is off (isOff)."""

    code = "node_may_run"


def declare(node_id: str, reason: str = "", *, is_off: bool) -> None:
    """The node is lost: its tenants claim elsewhere, and what they had not saved is there.

    ``is_off``: the caller vouches that none of its containers runs. A lost node stays as it is. Raises NodeNotFound,
    NodeAlive, NodeMayRun.
    """
    nodes.watch()  # its state follows from its heartbeat
    with recording():
        node = node_changes.locked(node_id)
        if node.is_lost:
            return
        if node.state != NodeState.SILENT or node.heartbeat_at > clock.now() - SILENT_AFTER:
            raise NodeAlive(
                f"A worker of {node_id} was alive {nodes.silence_s(node)} s ago. Cut the machine's power first; after"
                f" {SILENT_AFTER.total_seconds():.0f} s, the node is silent."
            )
        if not is_off:
            raise NodeMayRun
        audit.record("node.lost", node_id, after={"reason": reason, "isOff": is_off})
        _write(node, reason)


def _write(node: Node, reason: str) -> bool:
    """Within a transaction: move it, unless it has been alive since the row was read."""
    rows = Node.objects.filter(pk=node.pk, heartbeat_at=node.heartbeat_at, epoch=node.epoch)
    moved = rows.transition(
        NodeState.SILENT, NodeState.LOST,
        epoch=F("epoch") + 1, lost_at=Now(), lost_by=context.actor()[:160], lost_reason=reason,
    )  # fmt: skip
    if moved:
        OrmQ.objects.filter(key__endswith=f"@{node.pk}").delete()
        emit(
            "node.lost", node=node.pk, reason=reason, epoch=node.epoch + 1,
            heardOf=node.heartbeat_at.isoformat().replace("+00:00", "Z"),
        )  # fmt: skip
    return bool(moved)


def end(node_id: str, **payload: int) -> bool:
    """The lost node is active again: it has no container of an earlier epoch. False if it was not lost."""
    with recording():
        moved = Node.objects.filter(pk=node_id).transition(NodeState.LOST, NodeState.ACTIVE)
        if moved:
            emit("node.returned", node=node_id, **dict[str, Any](payload))
    return bool(moved)
