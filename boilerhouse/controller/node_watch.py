"""Which controller watches this node: its engine's list and events, the disks of its containers, its freezer.

Each node has one watcher at a time, whichever controller leads the deployment: only a process on the machine sees
these.
"""

from __future__ import annotations

import time
from datetime import timedelta
from uuid import UUID

import structlog
from django.db.models import Q
from django.db.models.functions import Now

from boilerhouse.core import compiled
from boilerhouse.core.compiled import Compiled
from boilerhouse.core.models import Node
from boilerhouse.process import processes
from pools.nodes import here

log = structlog.get_logger("boilerhouse.controller")

TTL = timedelta(seconds=4)
RENEW_EVERY_S = 1.8


class NodeWatch:
    """The right to watch this node. ``renew`` is called all the time; ``is_held`` by any thread."""

    def __init__(self) -> None:
        self._until = 0.0

    def is_held(self) -> bool:
        """Whether it was renewed recently enough that no other process can hold it."""
        return time.monotonic() < self._until

    def renew(self) -> None:
        """Take or renew it, if that is due and no other living process has it."""
        began = time.monotonic()
        if began <= self._until - TTL.total_seconds() + RENEW_EVERY_S:
            return
        if not _renewal(here().id, processes.current()).run():
            self._until = 0.0
            return
        if not self._until:
            log.info("watching the node", node=here().id)
        self._until = began + TTL.total_seconds()


@compiled.cached
def _renewal(node: str, me: UUID) -> Compiled:
    free = Q(watcher=me) | Q(watcher=None) | Q(watched_until__lt=Now())
    return compiled.update(Node.objects.filter(free, pk=node), watcher=me, watched_until=Now() + TTL)


def release() -> None:
    """Give it up, so that another controller of this node can watch it immediately."""
    Node.objects.filter(pk=here().id, watcher=processes.current()).update(watcher=None, watched_until=Now())
