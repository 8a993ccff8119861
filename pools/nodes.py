"""On which node a container is.

A node's engine, directories, file locks and cgroups are its own: whatever touches those of a container asks here first
whether they are this node's. What another node has is not to be found here, which does not mean that it is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from uuid import UUID

import structlog
from django.db import transaction

from boilerhouse.core.deployment import node_id
from boilerhouse.queues.tasks import enqueue
from pools.errors import OtherNode
from pools.models import Container, HostLease

log = structlog.get_logger(__name__)


def is_here(node: str | None) -> bool:
    """Whether that is this node; also where no row says which, as for what a release before this rule has left."""
    return node in (None, "", node_id())


def node_of(container_id: UUID) -> str:
    """The node of a container, or of what is left of one without a row; empty where nothing says."""
    node = Container.objects.filter(pk=container_id).values_list("node_id", flat=True).first()
    if node is None:
        node = HostLease.objects.filter(container_id=container_id).values_list("node_id", flat=True).first()
    return node or ""


def at_home(container_id: UUID) -> bool:
    """Whether this node may touch the container, or what is left of it."""
    node = node_of(container_id)
    if is_here(node):
        return True
    log.info("container left to its own node", container=str(container_id), node=node)
    return False


def check(node: str | None) -> None:
    """Return if that is this node. Raises OtherNode."""
    if not is_here(node):
        raise OtherNode(
            f"The container is on node {node}, but this request came to node {node_id()}. Send it to that node."
        )


def send_home(queue: str, function: str, *arguments: object, node: str | None) -> None:
    """Hand a message on that came here although only a worker of ``node`` may carry it out."""
    with transaction.atomic():
        enqueue(queue, function, *arguments, node=node)


def on_its_node(queue: str) -> Callable[[Callable[[str], None]], Callable[[str], None]]:
    """A task of one container, on ``queue``: it runs on the container's node; elsewhere its message goes there."""

    def bind(function: Callable[[str], None]) -> Callable[[str], None]:
        @wraps(function)
        def run(container_id: str) -> None:
            node = node_of(UUID(container_id))
            if is_here(node):
                function(container_id)
            else:
                send_home(queue, f"{function.__module__}.{function.__name__}", container_id, node=node)

        return run

    return bind
