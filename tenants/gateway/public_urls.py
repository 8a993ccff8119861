"""Where clients reach a port of a tenant: in claims, in the tenant's status and in containers."""

from __future__ import annotations

from typing import Any

from django.conf import settings

from tenants.gateway import hosts
from tenants.gateway.hosts import Place

DEFAULT_PORTS = {"http": 80, "https": 443}


def is_on() -> bool:
    return bool(settings.BOILERHOUSE_GATEWAY_PORT)


def origin_of(host: str) -> str:
    """``https://host``, with the gateway's port if it is not the scheme's own."""
    scheme = "https" if settings.BOILERHOUSE_GATEWAY_HTTPS else "http"
    port = settings.BOILERHOUSE_GATEWAY_PORT
    return f"{scheme}://{host}" if port == DEFAULT_PORTS[scheme] else f"{scheme}://{host}:{port}"


def url_of(place: Place) -> str:
    return f"{origin_of(hosts.name_of(place, settings.BOILERHOUSE_GATEWAY_DOMAIN))}/"


def added(endpoints: list[dict[str, Any]], label: str | None) -> list[dict[str, Any]]:
    """The endpoints of a tenant's container, each with its ``publicUrl`` if the gateway leads to it."""
    if not is_on() or not label:
        return endpoints
    return [
        {**each, "publicUrl": url_of(Place(each["port"], label))} if _leads_to(each) else each for each in endpoints
    ]


def _leads_to(endpoint: dict[str, Any]) -> bool:
    """Endpoints of claims of an earlier version have no ``access``: their ports are private."""
    return "url" in endpoint and endpoint.get("access") != "internal"
