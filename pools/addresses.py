"""Addresses that a workload or a pool may name for hosts and resolvers.

The firewall decides by address, whatever a name resolves to. A forbidden address would only time out, so it is refused
with an explanation. It is also refused where our firewall does not apply: in the engine's own resolver, and on other
networks.
"""

from __future__ import annotations

import ipaddress

from boilerhouse.core.errors import FieldError

METADATA = frozenset(
    map(
        ipaddress.ip_address,
        ("fd00:ec2::254", "fd20:ce::254", "fd00:c1::a9fe:a9fe", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
    )
)
"""Metadata services of clouds outside the link-local range."""
NAT64 = ipaddress.ip_network("64:ff9b::/96")
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def problem(text: str, *, loopback: bool) -> FieldError | None:
    """Why this address is not allowed; None if it is. ``loopback``: whether it may mean the container itself."""
    try:
        address = _plain(ipaddress.ip_address(text))
    except ValueError:
        return FieldError("", "Must be an IPv4 or IPv6 address.", "invalid")
    if "%" in text:
        return FieldError("", "Must be an address without a zone.", "invalid")
    if address.is_link_local or address in METADATA:
        detail = "Containers cannot reach link-local addresses or the cloud's metadata service."
        return FieldError("", detail, "not_allowed")
    if address.is_loopback and not loopback:
        detail = "A loopback address is the container itself or the node. Give the address of a resolver."
        return FieldError("", detail, "not_allowed")
    if address.is_multicast or address.is_unspecified or (address.is_reserved and not address.is_loopback):
        return FieldError("", "Must be the address of one host.", "invalid")
    return None


def _plain(address: IPAddress) -> IPAddress:
    """An IPv4 address written as an IPv6 address counts as IPv4."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    within = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in NAT64 else None
    return address.ipv4_mapped or address.sixtofour or within or address
