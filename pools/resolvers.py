"""Which resolvers the containers of this node may ask."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from django.conf import settings

RESOLV_CONF = Path("/etc/resolv.conf")
BEHIND_SYSTEMD = Path("/run/systemd/resolve/resolv.conf")
"""The resolvers that systemd's own, on a loopback address, asks."""


def of_node() -> tuple[str, ...]:
    """IPv4 addresses of the resolvers that the node itself asks, as far as containers can reach them too."""
    return set_by_deployment() or _reachable(RESOLV_CONF) or _reachable(BEHIND_SYSTEMD)


def set_by_deployment() -> tuple[str, ...]:
    """Those that the deployment names; empty where the node's own are meant."""
    return tuple(filter(is_reachable, settings.BOILERHOUSE_RESOLVERS))


def _reachable(path: Path) -> tuple[str, ...]:
    if not path.exists():
        return ()
    lines = (line.split() for line in path.read_text(errors="replace").splitlines())
    named = (words[1] for words in lines if len(words) > 1 and words[0] == "nameserver")
    return tuple(dict.fromkeys(filter(is_reachable, named)))


def is_reachable(text: str) -> bool:
    """Whether it is an IPv4 address that a container could ask."""
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified or address.is_multicast)
