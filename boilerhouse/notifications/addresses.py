"""Where notifications may go: to public addresses, and to hosts that the deployment allows.

Whoever may write a target names a server that the controller asks. So the address at the time of the connection
decides, whatever name led there, as with sinks (``syncing.sinks.outbound``). Unlike sinks, private networks are closed,
and one closed address of a name closes all of them.
"""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from django.conf import settings

from boilerhouse.notifications.errors import Undelivered
from syncing.sinks import network_settings, outbound

_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All that is routed publicly."""


def is_internal(text: str) -> bool:
    """Whether the address is loopback, private, link-local, reserved, multicast or a cloud's metadata service."""
    address = outbound.plain(text)
    if outbound.is_no_sink(address) or not address.is_global:
        return True
    return address.version == 6 and address not in _UNICAST


def is_allowed(host: str, port: int) -> bool:
    """Whether the deployment names the host or address."""
    parts = urlsplit(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
    return any(network_settings.names(entry, parts) for entry in settings.BOILERHOUSE_ALLOWED_NOTIFICATION_HOSTS)


def is_closed(host: str, port: int, address: str) -> bool:
    """Whether nothing may be sent to ``address``, the resolved address of ``host``."""
    return is_internal(address) and not any(is_allowed(name, port) for name in (host, str(outbound.plain(address))))


def open_addresses(host: str, port: int) -> list[str]:
    """The addresses of ``host`` from the resolver. Raises Undelivered if one of them is closed, socket.gaierror if
    there are none."""
    addresses = _resolved(host, port)
    if f"{host}:{port}" in outbound.own_proxies():
        return addresses
    if any(is_closed(host, port, address) for address in addresses):
        raise Undelivered(closed_words(host, port))
    return addresses


def check_behind_proxy(host: str, port: int) -> None:
    """The proxy resolves the name again; raise Undelivered if it is closed by what this node knows of it."""
    try:
        addresses = _resolved(host, port)
    except socket.gaierror:
        return  # only the proxy can resolve names
    if any(is_closed(host, port, address) for address in addresses):
        raise Undelivered(closed_words(host, port))


def closed_words(host: str, port: int) -> str:
    """The resolved address is left out: it would tell whoever writes targets about the internal network."""
    end = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return (
        f"Notifications may not go to {host}: it has an internal address. To allow it, add {end} to"
        " BOILERHOUSE_ALLOWED_NOTIFICATION_HOSTS and restart."
    )


def _resolved(host: str, port: int) -> list[str]:
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in infos))
