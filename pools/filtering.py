"""Keeps the packet filter of this node as the rows ask for it, and says where that cannot be done."""

from __future__ import annotations

import structlog
from django.db.models.functions import Now

from boilerhouse.core.deployment import node_id
from pools import firewall, host
from pools.errors import HostNotReady
from pools.instruments import DRIFT
from pools.models import Container, NetworkReport

log = structlog.get_logger(__name__)


def keep() -> None:
    """Compare the rules in force with the rows and restore them; what cannot be restored is kept for readiness."""
    if not Container.objects.filter(node=node_id(), address__isnull=False).exists():
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
