"""Removes the row of a node that does not come back, with what only it had: uids, addresses, messages."""

from __future__ import annotations

from django.db.models.functions import Now
from django_q.models import OrmQ

from boilerhouse.core import audit, node_changes, nodes
from boilerhouse.core.errors import Conflict
from boilerhouse.core.events import emit, recording, wake
from boilerhouse.core.models import Node
from boilerhouse.core.node_loss import NodeAlive
from boilerhouse.core.states import NodeState
from pools.models import Container, HostLease
from tenants import errors, releases
from tenants.models import Assignment
from tenants.states import AssignmentState


class NodeInUse(Conflict):
    """The node has containers, or state whose save has failed."""

    code = "node_in_use"


def remove(node_id: str, *, force: bool = False) -> None:
    """There is no such node any more. ``force`` gives up state on it whose save has failed.

    Raises NodeNotFound, NodeAlive while a worker is alive there, and NodeInUse.
    """
    with recording():
        node = node_changes.locked(node_id)
        if node.state == NodeState.ACTIVE:
            raise NodeAlive(f"A worker of {node_id} was alive {nodes.silence_s(node)} s ago. End its processes first.")
        if containers := Container.objects.filter(node=node).count():
            raise NodeInUse(f"{node_id} has {containers} containers. Drain it, or declare it lost if it is off.")
        kept = list(Assignment.objects.live().filter(container=None, directory_node=node_id))
        if kept and not force:
            raise NodeInUse(
                f"State of {len(kept)} tenants could not be saved and is on {node_id} alone. Start its worker to have"
                " it saved, or give it up with force."
            )
        for held in kept:
            _give_up(held, node)
        HostLease.objects.filter(node=node).delete()
        OrmQ.objects.filter(key__endswith=f"@{node_id}").delete()
        Node.objects.filter(pk=node_id).delete()
        audit.record("node.remove", node_id, before={"state": node.state, "givenUp": [held.tenant_id for held in kept]})
        emit("node.removed", node=node_id, givenUp=len(kept))


def _give_up(held: Assignment, node: Node) -> None:
    changes = {"step": "", "outcome": errors.NodeLost.code, "outcome_detail": f"Node {node.pk} was removed."}
    ended = Assignment.objects.filter(pk=held.pk).transition(
        AssignmentState(held.state), AssignmentState.ENDED, ended_at=Now(), owner=None, next_attempt_at=None, **changes
    )
    if ended:
        releases.recount(held.pool_id)
        emit(
            "container.lost", pool_id=held.pool_id, container_id=held.container_ref, tenant_id=held.tenant_id,
            node=node.pk, generation=held.generation, savedAt=None,
        )  # fmt: skip
        wake()
