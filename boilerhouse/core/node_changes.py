"""What operators change about a node: whether it gets new containers, its labels, and how much it may be promised."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from django.db.models.functions import Now

from boilerhouse.core import audit, context
from boilerhouse.core.clock import now
from boilerhouse.core.errors import NotFound
from boilerhouse.core.events import emit, recording
from boilerhouse.core.models import Node


class NodeNotFound(NotFound):
    """No such node."""

    code = "node_not_found"


def find(node_id: str) -> Node:
    """Raises NodeNotFound."""
    return _found(Node.objects.filter(pk=node_id).first(), node_id)


def _found(node: Node | None, node_id: str) -> Node:
    if node is None:
        raise NodeNotFound(f"No node {node_id}.")
    return node


def locked(node_id: str) -> Node:
    """The row, until the end of the transaction. Raises NodeNotFound."""
    return _found(Node.objects.select_for_update(no_key=True).filter(pk=node_id).first(), node_id)


def cordon(node_id: str, reason: str = "") -> None:
    """From now on the node gets no new containers; what it has stays and is used. Raises NodeNotFound.

    A cordoned node stays as it is: the first reason and time are kept.
    """
    with recording():
        if locked(node_id).is_cordoned:
            return
        mark = {"cordoned_at": now(), "cordoned_by": context.actor()[:160], "cordon_reason": reason}
        Node.objects.filter(pk=node_id).update(**mark)
        audit.record("node.cordon", node_id, after={"reason": reason})
        emit("node.cordoned", node=node_id, reason=reason)


def drain(node_id: str, reason: str = "", *, after: timedelta = timedelta(0)) -> None:
    """The node is emptied: it is cordoned, its idle containers are replaced elsewhere, and its tenants are released,
    with a save, ``after`` this time. Raises NodeNotFound.

    Draining it again sets another time.
    """
    cordon(node_id, reason)
    with recording():
        locked(node_id)
        Node.objects.filter(pk=node_id).update(drains_at=Now() + after, drained_at=None)
        seconds = round(after.total_seconds())
        audit.record("node.drain", node_id, after={"reason": reason, "afterS": seconds})
        emit("node.draining", node=node_id, reason=reason, afterS=seconds)


def uncordon(node_id: str) -> None:
    """The node gets new containers again, and is not drained any more. Raises NodeNotFound."""
    with recording():
        if not locked(node_id).is_cordoned:
            return
        Node.objects.filter(pk=node_id).update(
            cordoned_at=None, cordoned_by="", cordon_reason="", drains_at=None, drained_at=None
        )
        audit.record("node.uncordon", node_id)
        emit("node.uncordoned", node=node_id)


def replace(
    node_id: str, *, labels: Mapping[str, str], overcommit: float | None, check: Callable[[Node], None]
) -> None:
    """The node has these labels and this bound. ``check`` gets the row, under a lock, and raises to reject the change.

    Raises NodeNotFound.
    """
    with recording():
        node = locked(node_id)
        check(node)
        before = _audited(node)
        node.labels, node.overcommit = dict(labels), overcommit
        node.save(update_fields=["labels", "overcommit"])
        if before != _audited(node):
            audit.record("node.update", node_id, **audit.changes(before, _audited(node)))


def _audited(node: Node) -> dict[str, Any]:
    return {"labels": node.labels, "overcommit": node.overcommit}
