"""The resolvers that containers of this node may use."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from django.conf import settings

RESOLV_CONF = Path("/etc/resolv.conf")
BEHIND_SYSTEMD = Path("/run/systemd/resolve/resolv.conf")
"""The upstream resolvers of systemd-resolved, which itself listens on a loopback address."""


def of_node() -> tuple[str, ...]:
    """IPv4 addresses of the node's own resolvers that containers can also reach."""
    return set_by_deployment() or _reachable(RESOLV_CONF) or _reachable(BEHIND_SYSTEMD)


def set_by_deployment() -> tuple[str, ...]:
    """The configured resolvers; empty if the node's own are to be used."""
    return tuple(filter(is_reachable, settings.BOILERHOUSE_RESOLVERS))


def named_in(path: Path) -> tuple[str, ...]:
    """The resolvers in a resolv.conf file, reachable or not; empty if the file does not exist."""
    if not path.exists():
        return ()
    lines = (line.split() for line in path.read_text(errors="replace").splitlines())
    return tuple(dict.fromkeys(words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"))


def _reachable(path: Path) -> tuple[str, ...]:
    return tuple(filter(is_reachable, named_in(path)))


def is_reachable(text: str) -> bool:
    """Whether it is an IPv4 address that a container could query."""
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified or address.is_multicast)
