"""Keeps this node's packet filter in line with the rows, and reports failures."""

from __future__ import annotations

import structlog
from django.db.models import F
from django.db.models.functions import Now

from boilerhouse.core.deployment import node_id
from pools import firewall, lifecycle, name_resolution, policy_names
from pools.errors import HostNotReady
from pools.instruments import DRIFT
from pools.models import Container, NetworkReport
from pools.nodes import here, node_of
from pools.reconcile import Drift
from pools.states import ContainerState

log = structlog.get_logger(__name__)


def apply() -> None:
    """Apply the policies in this node's rows. Raises HostNotReady, EngineUnavailable."""
    if not _has_containers():
        return
    policy_names.learn(policy_names.wanted_names())
    firewall.apply(here().host.ensure_network())
    _write_names()


def apply_asked() -> None:
    """Apply requested policies that are not in force yet; concurrent requests are handled together."""
    if Container.objects.here().filter(egress_in_force__lt=F("egress_asked")).exists():
        apply()


def refresh_names() -> None:
    """Resolve the names in policies again; changes are in force when this returns. Raises as ``apply`` does."""
    if policy_names.refresh():
        apply()


def _write_names() -> None:
    """Update the containers' hosts files with the addresses of the names in their policies."""
    rows = Container.objects.here().filter(address__isnull=False).select_related("pool", "version")
    for row in rows:
        home, names = node_of(row).volumes.home(row.pk), row.policy_names
        if name_resolution.has_files(home) and (names or name_resolution.has_names(home)):
            name_resolution.write(home, row, row.version.spec, lifecycle.hostname(row.pk), policy_names.current(names))


def drift() -> list[Drift]:
    """Differences of this node's packet filter, for people; they are repaired together."""
    try:
        differences = firewall.differences(here().host.ensure_network()) if _has_containers() else []
    except HostNotReady as error:
        return [Drift("packet_filter", node_id(), error.detail, None)]
    return [Drift("packet_filter", node_id(), "; ".join(differences), keep)] if differences else []


def _has_containers() -> bool:
    return Container.objects.here().filter(address__isnull=False).exists()


def keep() -> None:
    """Compare the rules in force with the rows and restore them; failures are recorded for the readiness check."""
    if not _has_containers() and not firewall.stands():
        _report("")
        return
    try:
        differences = firewall.restore(here().host.ensure_network())
    except HostNotReady as error:
        _report(error.detail)
        raise
    for difference in (*differences, *_open_resolvers()):
        DRIFT.labels("packet_filter").inc()
        log.warning("packet filter restored", found=difference)
    _report("")


LOOKED_AT = 10
"""The number of container namespaces inspected per run: only root on this node can change them."""


def _open_resolvers() -> list[str]:
    """Close the engine's resolver to containers that can reach it, and return those."""
    rows = Container.objects.here().filter(state__in=[ContainerState.IDLE, ContainerState.CLAIMED])
    names, node = [], here()
    for pk in rows.filter(address__isnull=False).order_by("?").values_list("pk", flat=True)[:LOOKED_AT]:
        observed = node.runtime.inspect(lifecycle.runtime_name(pk))
        if observed is None or not observed.is_running or not name_resolution.has_files(node.volumes.home(pk)):
            continue
        if not name_resolution.is_closed(observed.pid):
            name_resolution.close(observed.pid)
            names.append(f"the engine's resolver was open to {pk}")
    return names


def _report(problem: str) -> None:
    row, is_new = NetworkReport.objects.get_or_create(node_id=node_id(), defaults={"problem": problem})
    if not is_new and row.problem != problem:
        NetworkReport.objects.filter(pk=row.pk).update(problem=problem, changed_at=Now())


def problems() -> list[str]:
    """The problem of each node's packet filter, as text."""
    rows = NetworkReport.objects.exclude(problem="").order_by("node_id")
    return [f"{row.node_id}: {row.problem}" for row in rows]
