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


def named_in(path: Path) -> tuple[str, ...]:
    """What a file like resolv.conf names, whether or not containers reach it; empty where there is no such file."""
    if not path.exists():
        return ()
    lines = (line.split() for line in path.read_text(errors="replace").splitlines())
    return tuple(dict.fromkeys(words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"))


def _reachable(path: Path) -> tuple[str, ...]:
    return tuple(filter(is_reachable, named_in(path)))


def is_reachable(text: str) -> bool:
    """Whether it is an IPv4 address that a container could ask."""
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified or address.is_multicast)
