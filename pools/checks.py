"""System checks of the limits for workloads."""

from __future__ import annotations

import ipaddress
import os
import stat
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register

from pools import egress, limits, permissions, resolvers


@register()
def workload_permits(**_: Any) -> list[CheckMessage]:
    messages: list[CheckMessage] = []
    for name, highest in settings.BOILERHOUSE_MAX_ULIMITS.items():
        if name not in limits.CEILINGS or highest < limits.UNLIMITED:
            names = ", ".join(sorted(limits.CEILINGS))
            hint = f"Write name=number, -1 for no limit; the names are {names}."
            messages.append(
                Error(
                    f"BOILERHOUSE_MAX_ULIMITS: {name}={highest} is not a valid limit.", hint=hint, id="boilerhouse.E020"
                )
            )
    for path in settings.BOILERHOUSE_ALLOWED_DEVICES:
        if path != permissions.GPUS and not path.startswith("/dev/"):
            hint = f"Give exact paths such as /dev/kvm, comma-separated, and {permissions.GPUS}."
            messages.append(
                Error(f"BOILERHOUSE_ALLOWED_DEVICES: {path} is not a device.", hint=hint, id="boilerhouse.E021")
            )
        elif path != permissions.GPUS and _is_disk(path):
            hint = (
                "A process in a container with this device can read and write the whole disk. Remove it from the list."
            )
            messages.append(
                Warning(f"BOILERHOUSE_ALLOWED_DEVICES: {path} is a disk.", hint=hint, id="boilerhouse.W020")
            )
    for address in settings.BOILERHOUSE_RESOLVERS:
        if not resolvers.is_reachable(address):
            hint = "Give IPv4 addresses, comma-separated, but none on loopback, which is the container itself."
            words = f"BOILERHOUSE_RESOLVERS: containers cannot use {address} as a resolver."
            messages.append(Error(words, hint=hint, id="boilerhouse.E022"))
    if settings.BOILERHOUSE_IPV6_SUBNET:
        messages += _ipv6_subnet(settings.BOILERHOUSE_IPV6_SUBNET)
    return messages


def _ipv6_subnet(text: str) -> list[CheckMessage]:
    try:
        network = ipaddress.IPv6Network(text)
    except ValueError:
        network = None
    if network is not None and egress.may_be_named(network) and str(network) == text and 32 <= network.prefixlen <= 96:
        return []
    hint = (
        "Give an IPv6 network with a prefix of 32 to 96, such as fd4b:6f1e:93c0::/64, or one that is routed to this"
        " node."
    )
    words = f"BOILERHOUSE_IPV6_SUBNET: {text} is not a network that containers can use."
    return [Error(words, hint=hint, id="boilerhouse.E023")]


def _is_disk(path: str) -> bool:
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)
    except OSError:
        return False
