"""Causes in the deployment's own processes: nodes, the controller, queues and steps."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.db.models import BooleanField, ExpressionWrapper, Q

from boilerhouse.attention.cause import Cause, Kind, Severity, Thing
from boilerhouse.attention.words import age, count, sentence
from boilerhouse.core import clock, node_leases, nodes
from boilerhouse.core.models import Deployment, FailingStep, Lease, Node, QueueHealth
from boilerhouse.core.querysets import without_heartbeat
from boilerhouse.core.states import NodeState
from boilerhouse.process.steps import later
from boilerhouse.queues.service import unserved_queues

GONE_AFTER = timedelta(seconds=15)
"""Long enough for another controller to take the lease, and for the only one to restart."""


def present() -> list[Cause]:
    """The causes in the deployment's processes."""
    return [*_nodes(), *_controller(), *_queues(), *_steps(), *_backups()]


def _nodes() -> list[Cause]:
    """Nodes that are lost, without a worker or fence, or whose engine is down. One query, because each page asks."""
    silent = ExpressionWrapper(without_heartbeat(), output_field=BooleanField())
    engine_down = Q(state=NodeState.ACTIVE) & ~Q(engine_error="")
    lost = Q(state=NodeState.LOST)
    unfenced = node_leases.is_unfenced()
    rows = list(
        Node.objects.annotate(is_silent=silent, is_unfenced=ExpressionWrapper(unfenced, output_field=BooleanField()))
        .filter(without_heartbeat() | engine_down | lost | unfenced)
        .order_by("pk")
    )
    fallen = [node for node in rows if node.is_silent]  # type: ignore[attr-defined]
    waiting = nodes.waiting_tasks() if fallen else {}
    return [
        *(_lost(node) for node in rows if node.is_lost),
        *(_silent(node, waiting.get(node.pk, 0)) for node in fallen),
        *_engines([node for node in rows if node.state == NodeState.ACTIVE and node.engine_error]),
        *(_unfenced(node) for node in rows if node.is_unfenced),  # type: ignore[attr-defined]
    ]


def _unfenced(node: Node) -> Cause:
    return Cause(
        key=f"fence:{node.pk}", kind=Kind.NODE_LOST, severity=Severity.WARNING, what="Node {} has no fence any more",
        thing=Thing.NODE, subject=node.pk, why="Its worker is alive, but run_fence has stopped renewing the lease.",
        effect="If the node is cut off now, its tenants cannot claim elsewhere before an operator declares it lost.",
        since=node.leased_at or clock.now(),
    )  # fmt: skip


def _lost(node: Node) -> Cause:
    return Cause(
        key=f"lost:{node.pk}", kind=Kind.NODE_LOST, what="Node {} is lost", thing=Thing.NODE, subject=node.pk,
        why=sentence(node.lost_reason or f"Declared lost by {node.lost_by}"),
        effect="Its tenants claim elsewhere; what they had not saved is there. When its worker runs again, the node"
        " removes its old containers and keeps their directories.", since=node.lost_at or clock.now(),
    )  # fmt: skip


def _silent(node: Node, waiting: int) -> Cause:
    tasks = f"{count(waiting, 'task')} {'waits' if waiting == 1 else 'wait'}" if waiting else "Its work waits"
    return Cause(
        key=f"node:{node.pk}", kind=Kind.NODE_LOST, what="Node {} has no worker", thing=Thing.NODE, subject=node.pk,
        why=f"No heartbeat from its workers for {age(nodes.silence_s(node))}.",
        effect=f"{tasks}: no other node can do it.", since=node.heartbeat_at,
    )  # fmt: skip


def _engines(down: list[Node]) -> list[Cause]:
    """Engines that do not answer while another node's does; otherwise the pools say so."""
    if not down or not Node.objects.filter(state=NodeState.ACTIVE).with_engine().exists():
        return []
    return [_engine(node) for node in down]


def _engine(node: Node) -> Cause:
    return Cause(
        key=f"engine:{node.pk}", kind=Kind.ENGINE_GONE, what="The engine of node {} does not answer", thing=Thing.NODE,
        subject=node.pk, why=sentence(node.engine_error),
        effect="New containers start on other nodes. Its own run on, but none is started, saved or removed there.",
        since=node.engine_down_since or clock.now(),
    )  # fmt: skip


def _controller() -> list[Cause]:
    lease = Lease.objects.filter(name=Lease.CONTROLLER, expires_at__lt=clock.now() - GONE_AFTER).first()
    if lease is None:
        return []
    return [
        Cause(
            key="controller", kind=Kind.CONTROLLER_LOST, what="No {} is running", thing=Thing.PROCESS,
            subject="controller",
            why=f"No controller has renewed its lease for {age((clock.now() - lease.expires_at).total_seconds())}.",
            effect="Pools are not refilled, and failed saves are not retried.", since=lease.expires_at,
        )
    ]  # fmt: skip


def _queues() -> list[Cause]:
    unserved = unserved_queues()
    last = dict(QueueHealth.objects.filter(pk__in=unserved).values_list("name", "served_at")) if unserved else {}
    return [
        Cause(
            key=f"queue:{name}", kind=Kind.QUEUE_UNSERVED, what="Queue {} is not served", thing=Thing.PROCESS,
            subject=name, why=f"No worker has served it for {age(seconds)} although one is running.",
            effect="Its tasks wait. The worker's log says why.", since=last.get(name, clock.now()),
        )
        for name, seconds in unserved.items()
    ]  # fmt: skip


def _steps() -> list[Cause]:
    return [
        Cause(
            key=f"step:{step.name}", kind=Kind.STEP_FAILING, what="Step {} is failing", thing=Thing.PROCESS,
            subject=step.name, why=sentence(f"{step.error}: {step.detail}" if step.detail else step.error),
            effect="It is retried; the other steps continue.", since=step.since,
        )
        for step in FailingStep.objects.order_by("since")
    ]  # fmt: skip


def _backups() -> list[Cause]:
    """None unless a limit is set: backups by other means, such as the database's own, cannot be seen here (ADR 82)."""
    longest = int(settings.BOILERHOUSE_BACKUP_MAX_AGE_S)
    row = Deployment.objects.first() if longest else None
    if row is None:
        return []
    now, last = clock.now(), row.backed_up_at
    due_at = later(last or row.created_at, longest * 1000)
    if now < due_at:
        return []
    state = f"The last backup is {age((now - last).total_seconds())} old." if last else "It has never been backed up."
    return [
        Cause(
            key="backup", kind=Kind.BACKUP_MISSING, severity=Severity.WARNING, what="{} has no recent backup",
            thing=Thing.DEPLOYMENT, subject="This deployment",
            why=f"{state} There should be one every {age(longest)} (BOILERHOUSE_BACKUP_MAX_AGE_S).",
            effect="If the database were lost, workloads, pools and the records of tenants would be lost with it.",
            since=due_at,
        )
    ]  # fmt: skip
