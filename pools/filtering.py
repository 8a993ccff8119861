"""Keeps the packet filter of this node as the rows ask for it, and says where that cannot be done."""

from __future__ import annotations

import structlog
from django.db.models.functions import Now

from boilerhouse.core.deployment import node_id
from boilerhouse.core.tasks import enqueue
from pools import firewall, host
from pools.errors import HostNotReady
from pools.instruments import DRIFT
from pools.models import Container, NetworkReport

log = structlog.get_logger(__name__)


QUEUES = ("claim", "pool")
"""Whichever serves first: one may be busy with starts, the other with restores, of which a worker is always left."""


def ask() -> None:
    """Have a worker put in force what the rows say when the caller's transaction has committed."""
    for queue in QUEUES:
        enqueue(queue, "pools.tasks.apply_packet_filter")


def apply() -> None:
    """Have in force what the rows of this node say. Raises HostNotReady, EngineUnavailable."""
    if _has_containers():
        firewall.apply(host.ensure_network())


def _has_containers() -> bool:
    return Container.objects.filter(node=node_id(), address__isnull=False).exists()


def keep() -> None:
    """Compare the rules in force with the rows and restore them; what cannot be restored is kept for readiness."""
    if not _has_containers():
        _report("")
        return
    try:
        found = firewall.restore(host.ensure_network())
    except HostNotReady as error:
        _report(error.detail)
        raise
    for one in found:
        DRIFT.labels("packet_filter").inc()
        log.warning("packet filter restored", found=one)
    _report("")


def _report(problem: str) -> None:
    row, is_new = NetworkReport.objects.get_or_create(node=node_id(), defaults={"problem": problem})
    if not is_new and row.problem != problem:
        NetworkReport.objects.filter(pk=row.pk).update(problem=problem, changed_at=Now())


def problems() -> list[str]:
    """What is missing on which node, in words."""
    rows = NetworkReport.objects.exclude(problem="").order_by("node")
    return [f"{row.node}: {row.problem}" for row in rows]
