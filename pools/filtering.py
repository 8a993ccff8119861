"""Keeps the packet filter of this node as the rows ask for it, and says where that cannot be done."""

from __future__ import annotations

import structlog
from django.db.models import F
from django.db.models.functions import Now

from boilerhouse.core.deployment import node_id
from pools import firewall, host, lifecycle, named, resolving, volumes
from pools.errors import HostNotReady
from pools.instruments import DRIFT
from pools.models import Container, NetworkReport
from pools.reconcile import Drift
from pools.runtime import get_runtime
from pools.states import ContainerState

log = structlog.get_logger(__name__)


def apply() -> None:
    """Have in force what the rows of this node say. Raises HostNotReady, EngineUnavailable."""
    if not _has_containers():
        return
    named.learn(named.wanted_names())
    firewall.apply(host.ensure_network())
    _write_names()


def apply_asked() -> None:
    """Have in force what was asked for and is not yet; many that ask at once are served at once."""
    if Container.objects.here().filter(egress_in_force__lt=F("egress_asked")).exists():
        apply()


def refresh_names() -> None:
    """Ask again for names in policies; what changed is in force when this returns. Raises as ``apply`` does."""
    if named.refresh():
        apply()


def _write_names() -> None:
    """Have the containers' hosts files say what the names in their policies stand for."""
    rows = Container.objects.here().filter(address__isnull=False).select_related("pool", "version")
    for row in rows:
        home, names = volumes.home(row.pk), row.policy_names
        if resolving.has_files(home) and (names or resolving.has_names(home)):
            resolving.write(home, row, row.version.spec, lifecycle.hostname(row.pk), named.current(names))


def drift() -> list[Drift]:
    """What of the packet filter is not in force on this node, for people to see; mended as a whole."""
    try:
        found = firewall.differences(host.ensure_network()) if _has_containers() else []
    except HostNotReady as error:
        return [Drift("packet_filter", node_id(), error.detail, None)]
    return [Drift("packet_filter", node_id(), "; ".join(found), keep)] if found else []


def _has_containers() -> bool:
    return Container.objects.here().filter(address__isnull=False).exists()


def keep() -> None:
    """Compare the rules in force with the rows and restore them; what cannot be restored is kept for readiness."""
    if not _has_containers() and not firewall.stands():
        _report("")
        return
    try:
        found = firewall.restore(host.ensure_network())
    except HostNotReady as error:
        _report(error.detail)
        raise
    for one in (*found, *_open_resolvers()):
        DRIFT.labels("packet_filter").inc()
        log.warning("packet filter restored", found=one)
    _report("")


LOOKED_AT = 10
"""So many containers' own namespaces are looked at each time: nothing but root on this node changes them."""


def _open_resolvers() -> list[str]:
    """Close the engine's resolver to containers that reach it, and say which those were."""
    rows = Container.objects.here().filter(state__in=[ContainerState.IDLE, ContainerState.CLAIMED])
    found = []
    for pk in rows.filter(address__isnull=False).order_by("?").values_list("pk", flat=True)[:LOOKED_AT]:
        seen = get_runtime().inspect(lifecycle.runtime_name(pk))
        if seen is None or not seen.is_running or not resolving.has_files(volumes.home(pk)):
            continue
        if not resolving.is_closed(seen.pid):
            resolving.close(seen.pid)
            found.append(f"the engine's resolver was open to {pk}")
    return found


def _report(problem: str) -> None:
    row, is_new = NetworkReport.objects.get_or_create(node_id=node_id(), defaults={"problem": problem})
    if not is_new and row.problem != problem:
        NetworkReport.objects.filter(pk=row.pk).update(problem=problem, changed_at=Now())


def problems() -> list[str]:
    """What is missing on which node, in words."""
    rows = NetworkReport.objects.exclude(problem="").order_by("node_id")
    return [f"{row.node_id}: {row.problem}" for row in rows]
