"""Links to one port of a tenant's container. Anyone who opens one reaches the port until the link expires."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime

from boilerhouse.core import audit
from boilerhouse.core.errors import Conflict, NotFound
from boilerhouse.core.events import recording
from pools.spec import Port, WorkloadSpec
from tenants import errors, validation
from tenants.gateway import hosts, passes, public_urls
from tenants.gateway.hosts import Place
from tenants.gateway.passes import Pass, Role
from tenants.models import Assignment, Tenant
from tenants.states import AssignmentState

OPEN = ".boilerhouse/open"
"""The path at which the gateway exchanges a link for a cookie."""


class GatewayOff(Conflict):
    """The gateway is off (BOILERHOUSE_GATEWAY_PORT=0), or it cannot run here; the log of `up` says why."""

    code = "gateway_off"


class PortNotFound(NotFound):
    """The workload declares no such TCP port, or its `access` is `internal`."""

    code = "port_not_found"


@dataclass(frozen=True, slots=True)
class Link:
    url: str
    expires_at: datetime


def make(tenant_id: str, port: str, lasts_s: int, key_id: str) -> Link:
    """A link to the port, which ends with the key that makes it. The audit log has who made it.

    It leads to the container that the tenant holds when it is opened. Raises Invalid, GatewayOff, NotAssigned,
    Releasing, PortNotFound.
    """
    if not public_urls.is_on():
        raise GatewayOff
    place = _place(tenant_id, port)
    granted = Pass(Role.LINK, place.port, place.label, int(time.time()) + lasts_s, key_id)
    with recording():
        audit.record("tenant.port_link", tenant_id, after={"port": place.port, "expiresInS": lasts_s})
    url = f"{public_urls.url_of(place)}{OPEN}?token={passes.sign(granted)}"
    return Link(url, datetime.fromtimestamp(granted.expires_at, UTC))


def _place(tenant_id: str, port: str) -> Place:
    validation.check_tenant_id(tenant_id)
    rows = Assignment.objects.live().select_related("tenant", "container__version").filter(tenant_id=tenant_id)
    held = rows.first()
    if held is not None and held.state == AssignmentState.RELEASING:
        raise errors.Releasing
    if held is None or held.state != AssignmentState.ASSIGNED or held.container is None:
        raise errors.NotAssigned
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= len(str(hosts.MAX_PORT)) else 0
    if port_of(held.container.version.spec, number) is None:
        raise PortNotFound
    return Place(number, held.tenant.host_label or _labelled(tenant_id))


def port_of(spec: WorkloadSpec, number: int) -> Port | None:
    """The declared TCP port that the gateway leads to."""
    return next(
        (each for each in spec.ports
         if (each.container_port, each.protocol) == (number, "tcp") and each.access != "internal"),
        None,
    )  # fmt: skip


def _labelled(tenant_id: str) -> str:
    """The label of a tenant that an earlier version made; two callers at once get the same one."""
    Tenant.objects.filter(pk=tenant_id, host_label=None).update(host_label=hosts.new_label())
    return str(Tenant.objects.get(pk=tenant_id).host_label)
