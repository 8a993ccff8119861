"""Declares nodes lost. From then on the rows of a node's containers are settled elsewhere (``tenants.node_losses``).

Two machines must never run a tenant at once (P1). So a node is declared lost only when something vouches that its
containers do not run: an operator who says that the machine is off, or the node's own fence (``node_leases``).
"""

from __future__ import annotations

from typing import Any

from django.db.models import F, Q
from django.db.models.functions import Now
from django_q.models import OrmQ

from boilerhouse.core import audit, context, node_changes, nodes
from boilerhouse.core.errors import Conflict
from boilerhouse.core.events import emit, recording
from boilerhouse.core.models import Node
from boilerhouse.core.querysets import SILENT_AFTER, without_heartbeat
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
        if node.state == NodeState.SILENT and not is_off:
            raise NodeMayRun
        if not _write(node, reason, without_heartbeat()):
            raise NodeAlive(
                f"A worker of {node_id} was alive {nodes.silence_s(node)} s ago. Cut the machine's power first; after"
                f" {SILENT_AFTER.total_seconds():.0f} s, the node is silent."
            )
        audit.record("node.lost", node_id, after={"reason": reason, "isOff": is_off})


def declare_expired(node_id: str, is_over: Q) -> bool:
    """The node is lost, if its lease ``is_over`` at this moment, so that its fence has stopped its containers. Returns
    whether it has become so."""
    with recording():
        node = node_changes.locked(node_id)
        return _write(node, "It has not renewed its lease, and has stopped its containers by now.", is_over)


def _write(node: Node, reason: str, condition: Q) -> bool:
    """Within a transaction: move it from ``silent``, on this condition, which the database judges by its clock."""
    rows = Node.objects.filter(condition, pk=node.pk, epoch=node.epoch)
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
        fence: dict[str, Any] = {"leased_at": None, "leased_since": None, "fence_peers": []}
        moved = Node.objects.filter(pk=node_id).transition(NodeState.LOST, NodeState.ACTIVE, **fence)
        if moved:
            emit("node.returned", node=node_id, **dict[str, Any](payload))
    return bool(moved)
