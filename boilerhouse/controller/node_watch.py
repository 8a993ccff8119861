"""Which controller watches this node: its engine's list and events, the disks of its containers, its freezer.

Each node has one watcher at a time, whichever controller leads the deployment: only a process on the machine sees
these.
"""

from __future__ import annotations

from uuid import UUID

import structlog
from django.db.models import Q
from django.db.models.functions import Now

from boilerhouse.controller.rights import TTL, Right
from boilerhouse.core import compiled
from boilerhouse.core.compiled import Compiled
from boilerhouse.core.models import Node
from boilerhouse.process import processes
from pools.nodes import here

log = structlog.get_logger("boilerhouse.controller")


class NodeWatch(Right):
    """The right to watch this node."""

    def __init__(self) -> None:
        super().__init__(lambda: bool(_renewal(here().id, processes.current()).run()))

    def renew(self) -> bool:
        is_new = super().renew()
        if is_new:
            log.info("watching the node", node=here().id)
        return is_new


@compiled.cached
def _renewal(node: str, me: UUID) -> Compiled:
    free = Q(watcher=me) | Q(watcher=None) | Q(watched_until__lt=Now())
    return compiled.update(Node.objects.filter(free, pk=node), watcher=me, watched_until=Now() + TTL)


def release() -> None:
    """Give it up, so that another controller of this node can watch it immediately."""
    Node.objects.filter(pk=here().id, watcher=processes.current()).update(watcher=None, watched_until=Now())
