"""Where a request of the gateway goes: the one question that nginx asks, answered from rows."""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings

from boilerhouse.core import api_keys
from boilerhouse.core.deployment import node_id
from boilerhouse.core.models import ApiKey, Role
from pools.models import Container
from pools.spec import Port
from pools.states import ContainerState
from tenants.gateway import hosts, passes
from tenants.gateway.hosts import Place
from tenants.gateway.links import port_of
from tenants.models import Assignment, Tenant
from tenants.states import AssignmentState


@dataclass(frozen=True, slots=True)
class Credential:
    """What the client showed; empty: nothing."""

    key: str = ""
    cookie: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """The address that the request goes to."""

    target: str


@dataclass(frozen=True, slots=True)
class Refusal:
    status: int
    code: str
    detail: str
    retry_after_s: int | None = None


NOWHERE = Refusal(404, "not_found", "No port of a tenant has this host name.")
NOT_HELD = Refusal(503, "not_running", "The tenant holds no container at the moment.", 5)
OTHER_NODE = Refusal(503, "other_node", "The tenant's container is on another node.", 5)
NO_CREDENTIAL = Refusal(401, "not_authenticated", "Send X-Boilerhouse-Key, or open a link to this port.")
BAD_CREDENTIAL = Refusal(401, "not_authenticated", "The key or the link is unknown, expired or revoked.")
FORBIDDEN = Refusal(403, "permission_denied", "This key may not act for the tenant.")
NOBODY_LISTENS = Refusal(502, "nobody_listens", "Nothing in the container accepts connections on this port.")
UNAVAILABLE = Refusal(503, "unavailable", "The gateway cannot decide at the moment. Ask again.", 1)
BY_CODE = {
    refusal.code: refusal for refusal in (NOWHERE, NOT_HELD, OTHER_NODE, FORBIDDEN, NOBODY_LISTENS, UNAVAILABLE)
} | {"not_authenticated": NO_CREDENTIAL}


def decide(host: str, credential: Credential) -> Route | Refusal:
    """Where a request for ``host`` with this credential goes at this moment.

    The tenant's own container or nothing: the label is unique, and a tenant has at most one assignment that has not
    ended. nginx may keep the answer for five seconds, because the address rests for ten minutes after its container.
    """
    place = hosts.place_of(host, settings.BOILERHOUSE_GATEWAY_DOMAIN)
    if place is None:
        return NOWHERE
    rows = Assignment.objects.filter(tenant__host_label=place.label).exclude(state=AssignmentState.ENDED)
    held = rows.select_related("container__version").first()
    if held is None or not _serves(held.container) or held.state != AssignmentState.ASSIGNED:
        return NOT_HELD if held is not None or _is_label(place.label) else NOWHERE
    assert held.container is not None
    port = port_of(held.container.version.spec, place.port)
    if port is None:
        return NOWHERE
    if port.access != "public" and (refusal := _refusal(place, held.tenant_id, credential)):
        return refusal
    return _target(held.container, port)


def _serves(container: Container | None) -> bool:
    return container is not None and container.state == ContainerState.CLAIMED and bool(container.address)


def _is_label(label: str) -> bool:
    return Tenant.objects.filter(host_label=label).exists()


def _target(container: Container, port: Port) -> Route | Refusal:
    """The seam for other nodes: their gateways will be the target of what is theirs."""
    if container.node_id != node_id():
        return OTHER_NODE
    return Route(f"{container.address}:{port.container_port}")


def _refusal(place: Place, tenant_id: str, credential: Credential) -> Refusal | None:
    if credential.key:
        key = api_keys.find_key(credential.key)
        if key is None:
            return BAD_CREDENTIAL
        return None if may_act_for(key, tenant_id) else FORBIDDEN
    if not credential.cookie:
        return NO_CREDENTIAL
    granted = passes.read(credential.cookie, passes.Role.COOKIE)
    if granted is None or granted.place != place:
        return BAD_CREDENTIAL
    return None if _key_allows(granted, tenant_id) else BAD_CREDENTIAL


def _key_allows(granted: passes.Pass, tenant_id: str) -> bool:
    key = ApiKey.objects.filter(pk=granted.key_id).first()
    return key is not None and key.is_living and may_act_for(key, tenant_id)


def may_act_for(key: ApiKey, tenant_id: str) -> bool:
    """Whether the key may do in the tenant's container what the tenant may."""
    return key.role in (Role.ADMIN, Role.OPERATOR) or (key.role == Role.TENANT and tenant_id in key.tenant_ids)


def exchange(host: str, text: str) -> passes.Pass | None:
    """The pass of the cookie that the link's pass is exchanged for; None if the link does not lead to this host.

    The cookie ends when the link would have.
    """
    link = passes.read(text, passes.Role.LINK)
    if link is None or hosts.place_of(host, settings.BOILERHOUSE_GATEWAY_DOMAIN) != link.place:
        return None
    if not api_keys.living_keys([link.key_id]):
        return None
    return passes.Pass(passes.Role.COOKIE, link.port, link.label, link.expires_at, link.key_id)
