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
from boilerhouse.core.recently import Recently
from boilerhouse.core.tasks import enqueue
from pools.errors import OtherNode
from pools.models import Container, HostLease

log = structlog.get_logger(__name__)

AGAIN_S = 1.0
"""A message that came to the wrong node can be taken again so much later."""
_given_back = Recently(0.8 * AGAIN_S)


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
    log.info("a container is left to its own node", container=str(container_id), node=node)
    return False


def check(node: str | None) -> None:
    """Return if that is this node. Raises OtherNode."""
    if not is_here(node):
        raise OtherNode(
            f"The container is on node {node}, and this request came to node {node_id()}. Send it to that node."
        )


def give_back(queue: str, function: str, *arguments: object) -> None:
    """Put a message back for a worker of the right node.

    Of equal messages a process keeps about one on its way: that node may be away for long, and the controller sends
    more meanwhile.
    """
    if _given_back.is_new((function, *map(str, arguments))):
        with transaction.atomic():
            enqueue(queue, function, *arguments, after_s=AGAIN_S)


def on_its_node(queue: str) -> Callable[[Callable[[str], None]], Callable[[str], None]]:
    """A task of one container, on ``queue``: it runs on the container's node; elsewhere its message goes back."""

    def bind(function: Callable[[str], None]) -> Callable[[str], None]:
        @wraps(function)
        def run(container_id: str) -> None:
            if at_home(UUID(container_id)):
                function(container_id)
            else:
                give_back(queue, f"{function.__module__}.{function.__name__}", container_id)

        return run

    return bind
