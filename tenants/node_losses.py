"""What becomes of the containers and tenants of a node that was declared lost (ADR 100).

Rows alone decide: nothing of the node is reachable. Each container is settled in one transaction, and settling can be
repeated, so a leader that dies in between costs nothing. The node stays lost until no row of it is left.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from django.db.models import BooleanField, ExpressionWrapper, Q
from django.db.models.functions import Now
from django_q.models import OrmQ

from boilerhouse.core import clock, compiled
from boilerhouse.core.compiled import Compiled
from boilerhouse.core.cooldown import Cooldown
from boilerhouse.core.events import emit, recording, wake
from boilerhouse.core.models import Node
from boilerhouse.core.querysets import SILENT_AFTER
from boilerhouse.core.states import NodeState
from boilerhouse.process.steps import each
from boilerhouse.queues.tasks import enqueue
from pools import lifecycle
from pools.models import Container, Pool
from pools.nodes import NodeAccess
from tenants import errors, node_drains, releases, wait_queue
from tenants.models import Assignment, Tenant
from tenants.states import AssignmentState, ReleaseReason, ReleaseStep, Source

log = structlog.get_logger(__name__)

AT_ONCE = 200
"""Containers of one round: with thousands, claims elsewhere must not wait for all of them."""
PENDING, ASSIGNED, RELEASING = AssignmentState.PENDING, AssignmentState.ASSIGNED, AssignmentState.RELEASING
UNSAVED_IN = (ReleaseStep.STOPPING, ReleaseStep.SAVING)
KEPT_RETRY = timedelta(minutes=10)
_sent = Cooldown(10)


def settle() -> int:
    """Settle containers of lost nodes, have nodes that are back remove theirs, and empty those that are drained.
    Returns how much was done."""
    return each(_departing().instances(Node), _go_on)


@compiled.cached
def _departing() -> Compiled:
    is_due = ExpressionWrapper(Q(drains_at__lte=Now()), output_field=BooleanField())
    rows = Node.objects.filter(Q(state=NodeState.LOST) | Q(drains_at__isnull=False, drained_at=None))
    return compiled.selection(rows.annotate(is_due=is_due).order_by("pk"))


def _go_on(node: Node) -> int:
    if node.is_lost:
        return _settle_node(node)
    return node_drains.drain(node, is_due=bool(node.is_due))  # type: ignore[attr-defined]


def _settle_node(node: Node) -> int:
    rows = Container.objects.filter(node=node).order_by("state_changed_at")
    done = each(list(rows.values_list("pk", flat=True)[:AT_ONCE]), _settle_container)
    done += each(list(_waiting_for(node)), _leave_on_node)
    return done if done else _welcome(node)


def _settle_container(container_id: UUID) -> int:
    """Its tenant's claim waits for another container, or ends; its row is deleted, and the pool is refilled."""
    with recording():
        pool_id = Container.objects.filter(pk=container_id).values_list("pool_id", flat=True).first()
        if pool_id is None:
            return 0
        # The pool before the claim, in the same order as everywhere.
        Pool.objects.select_for_update(no_key=True).filter(pk=pool_id).first()
        held = Assignment.objects.live().select_for_update(no_key=True).filter(container_ref=container_id).first()
        container = Container.objects.select_related("version", "node").filter(pk=container_id).first()
        if container is None or not container.node.is_lost:
            return 0
        if held is not None:
            _part(held, container.node)
        lifecycle.forget_lost(container, held.tenant_id if held is not None and held.was_assigned else "")
        enqueue("pool", "pools.tasks.refill", pool_id)
    return 1


def _part(held: Assignment, node: Node) -> None:
    match held.state:
        case AssignmentState.PENDING:
            _wait_again(held)
        case AssignmentState.ASSIGNED:
            _end_unsaved(held, node)
        case AssignmentState.RELEASING:
            if held.was_assigned and not held.discard and held.step in UNSAVED_IN:
                _end_unsaved(held, node)
            else:
                _end_release(held, node)


def _wait_again(held: Assignment) -> None:
    """The claim waits for another container. With a new generation, whatever the node still does for it is void."""
    generation = held.generation + 1
    Tenant.objects.filter(pk=held.tenant_id, generation__lt=generation).update(generation=generation)
    Assignment.objects.filter(pk=held.pk, state=PENDING).update(
        container=None, container_ref=None, source=Source.COLD, owner=None, generation=generation
    )
    wait_queue.recount(held.pool_id)


def _end_unsaved(held: Assignment, node: Node) -> None:
    """The tenant's next claim restores its last complete save."""
    rows = Assignment.objects.filter(pk=held.pk)
    detail = f"Node {node.pk} was lost. What was not saved is there."
    changes = _ended(node) | {"outcome": errors.NodeLost.code, "outcome_detail": detail}
    changes["reason"] = held.reason or ReleaseReason.NODE_LOST
    if not rows.transition(AssignmentState(held.state), AssignmentState.ENDED, **changes):
        return
    emit(
        "container.lost", pool_id=held.pool_id, container_id=held.container_ref, tenant_id=held.tenant_id,
        node=node.pk, generation=held.generation, savedAt=_saved_at(held.tenant_id),
    )  # fmt: skip
    wake()


def _end_release(held: Assignment, node: Node) -> None:
    """Its state is saved, or was not to be: only the removal was missing, and the node does that when it is back."""
    outcome = held.outcome if not held.was_assigned else ("discarded" if held.discard else "released")
    if not Assignment.objects.filter(pk=held.pk).transition(
        RELEASING, AssignmentState.ENDED, outcome=outcome, **_ended(node)
    ):
        return
    emit(
        "container.released", pool_id=held.pool_id, container_id=held.container_ref, tenant_id=held.tenant_id,
        outcome=outcome, reason=held.reason,
    )  # fmt: skip
    wake()


def _ended(node: Node) -> dict[str, Any]:
    return {
        "step": "", "ended_at": Now(), "owner": None, "next_attempt_at": None, "directory_node": node.pk,
        "container": None,
    }  # fmt: skip


def _saved_at(tenant_id: str) -> str | None:
    at = Tenant.objects.filter(pk=tenant_id).values_list("saved_at", flat=True).first()
    return at.isoformat().replace("+00:00", "Z") if at else None


def _waiting_for(node: Node) -> Any:
    """Releases whose container is gone and whose directory is on the node."""
    return Assignment.objects.filter(state=RELEASING, container=None, directory_node=node.pk)


def _leave_on_node(held: Assignment) -> int:
    """A failed save was retried or discarded after its node was lost.

    Unsaved state waits for the node, as it does for a sink that is down. Discarded state is not waited for.
    """
    node = Node.objects.get(pk=held.directory_node)
    with recording():
        if held.discard or held.step not in UNSAVED_IN:
            _end_release(held, node)
            return 1
        moved = Assignment.objects.filter(pk=held.pk, attempt=held.attempt).transition(
            RELEASING, AssignmentState.RELEASE_FAILED, step=ReleaseStep.SAVING, outcome=errors.NodeLost.code,
            outcome_detail=f"Node {node.pk} is lost.", owner=None, next_attempt_at=clock.now() + KEPT_RETRY,
        )  # fmt: skip
        if moved:
            releases.recount(held.pool_id)
            wake()
    return moved


def _welcome(node: Node) -> int:
    """A worker of the node is alive, and no row of it is left: it removes what it still has."""
    if clock.now() - node.heartbeat_at > SILENT_AFTER or not _sent.is_new((node.pk, node.epoch)):
        return 0
    if OrmQ.objects.filter(key=f"pool@{node.pk}").exists():
        return 0
    NodeAccess(node.pk).queue.hand_on("pool", "tenants.tasks.clean_returned_node", node.pk, node.epoch)
    return 1
