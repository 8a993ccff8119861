"""Nodes as rows: which are alive, which have no heartbeat, and which are deleted.

Each worker updates its node's heartbeat. The controller watches them. Work bound to an unreachable node waits for it.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

from django.db.models import Count, Exists, OuterRef, ProtectedError, Q
from django.db.models.functions import Now
from django_q.models import OrmQ

from boilerhouse.core import clock, compiled
from boilerhouse.core.compiled import Compiled
from boilerhouse.core.deployment import node_id
from boilerhouse.core.events import emit, recording
from boilerhouse.core.models import Node, Process
from boilerhouse.core.querysets import SILENT_AFTER, is_alive, without_heartbeat
from boilerhouse.core.states import NodeState

BEAT_S = 1.5
"""The minimum interval between two heartbeats of a node, whichever of its workers writes them."""
FORGET_AFTER = timedelta(hours=1)
LONGEST_ERROR = 500


def beat() -> None:
    """Record a heartbeat of this node."""
    _heartbeat_of(node_id()).run()


@compiled.cached
def _heartbeat_of(node: str) -> Compiled:
    late = Now() - timedelta(seconds=BEAT_S)
    return compiled.update(Node.objects.filter(pk=node, heartbeat_at__lt=late), heartbeat_at=Now())


@compiled.cached
def _any_turned() -> Compiled:
    fresh = Now() - SILENT_AFTER
    fallen = Q(state=NodeState.ACTIVE, heartbeat_at__lt=fresh)
    back = Q(state=NodeState.SILENT, heartbeat_at__gte=fresh)
    return compiled.selection(Node.objects.filter(fallen | back).order_by().values_list("pk")[:1])


def watch() -> int:
    """Mark nodes that have become unreachable and nodes that are back, each with an event. Returns how many changed."""
    if not _any_turned().exists():
        return 0
    fresh = Now() - SILENT_AFTER
    fallen = Node.objects.filter(state=NodeState.ACTIVE, heartbeat_at__lt=fresh)
    back = Node.objects.filter(state=NodeState.SILENT, heartbeat_at__gte=fresh)
    changed = 0
    with recording():
        for node in fallen:
            if Node.objects.filter(pk=node.pk, heartbeat_at__lt=fresh).transition(NodeState.ACTIVE, NodeState.SILENT):
                emit("node.silent", node=node.pk, heardOf=node.heartbeat_at.isoformat().replace("+00:00", "Z"))
                changed += 1
        for node in back:
            if Node.objects.filter(pk=node.pk).transition(NodeState.SILENT, NodeState.ACTIVE):
                emit("node.returned", node=node.pk)
                changed += 1
    return changed


def silent() -> dict[str, int]:
    """Nodes without a living worker → seconds since the last heartbeat."""
    return {node.pk: silence_s(node) for node in Node.objects.filter(without_heartbeat()).order_by("pk")}


def silence_s(node: Node) -> int:
    """Seconds since its last heartbeat."""
    return round((clock.now() - node.heartbeat_at).total_seconds())


def is_silent(node: str | None) -> bool:
    """Whether the node has no living worker, so that tasks sent to it wait, or is lost."""
    return bool(node) and Node.objects.filter(pk=node).exclude(state=NodeState.ACTIVE).exists()


def active() -> list[str]:
    """Nodes that can receive tasks that every node runs for itself."""
    return list(Node.objects.filter(state=NodeState.ACTIVE).order_by("pk").values_list("pk", flat=True))


def record_engine(error: str) -> None:
    """This node's row says why its engine does not answer; empty if it does."""
    here, error = Node.objects.filter(pk=node_id()), error[:LONGEST_ERROR]
    if error:
        here.filter(engine_error="").update(engine_down_since=Now())
        here.exclude(engine_error=error).update(engine_error=error)
    else:
        here.exclude(engine_error="").update(engine_error="", engine_down_since=None)


def record_address(address: str) -> None:
    """This node's row says where it listens for other nodes; empty if it does not."""
    Node.objects.filter(pk=node_id()).exclude(address=address).update(address=address)


def others_have_engines() -> bool:
    """Whether another living node has reported an engine that answers."""
    return Node.objects.filter(is_alive()).with_engine().exclude(pk=node_id()).exists()


def unwatched() -> list[str]:
    """Living nodes that no controller has compared with their engine for a while."""
    old = Now() - SILENT_AFTER
    rows = Node.objects.filter(Q(watched_until=None) | Q(watched_until__lt=old), state=NodeState.ACTIVE)
    return list(rows.filter(created_at__lt=old).order_by("pk").values_list("pk", flat=True))


def waiting_tasks() -> dict[str, int]:
    """Nodes → number of messages that wait for a worker there; nodes without any are left out."""
    due = OrmQ.objects.filter(key__contains="@", lock__lte=clock.now())
    counts = Counter[str]()
    for key, count in due.values_list("key").annotate(n=Count("id")).order_by():
        counts[key.partition("@")[2]] += count
    return dict(counts)


def forget_gone() -> int:
    """Delete nodes that have been unreachable for an hour and own nothing. Returns how many."""
    processes = Process.objects.filter(node=OuterRef("pk"))
    expired = Node.objects.filter(state=NodeState.SILENT, heartbeat_at__lt=Now() - FORGET_AFTER)
    return sum(_forget(node) for node in expired.filter(~Exists(processes)))


def _forget(node: Node) -> bool:
    try:
        Node.objects.filter(pk=node.pk).delete()
    except ProtectedError:  # it has containers, or uids and addresses in use
        return False
    OrmQ.objects.filter(key__endswith=f"@{node.pk}").delete()
    return True
