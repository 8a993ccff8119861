"""The deployment's network: a subnet that no route of this host uses."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings

from boilerhouse.core import deployment
from pools.host.identity import bridge_name, labels, network_name
from pools.host.setup_lock import changing_the_host
from pools.runtime import get_runtime
from pools.runtime.base import Network


def _subnets() -> Iterator[str]:
    if settings.BOILERHOUSE_SUBNET:
        yield settings.BOILERHOUSE_SUBNET
        return
    used = _routed_networks()
    first = int(deployment.deployment_id(), 16) % 64
    for step in range(64):
        candidate = ipaddress.ip_network(f"10.{64 + (first + step) % 64}.0.0/16")
        if not any(candidate.overlaps(network) for network in used):
            yield str(candidate)


def _routed_networks() -> list[ipaddress.IPv4Network]:
    networks = []
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        fields = line.split()
        address, mask = (int.from_bytes(bytes.fromhex(fields[i])[::-1], "big") for i in (1, 7))
        if mask:
            networks.append(ipaddress.IPv4Network((address, bin(mask).count("1"))))
    return networks


def ensure_network() -> Network:
    """Create the deployment's network if necessary. Raises HostNotReady, EngineUnavailable."""
    with changing_the_host():  # two concurrent creations would conflict in the bridge's name
        return get_runtime().ensure_network(
            network_name(), bridge_name(), _subnets(), labels(), settings.BOILERHOUSE_IPV6_SUBNET
        )
