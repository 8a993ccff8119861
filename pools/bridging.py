"""Whether the deployment's bridge passes packets between its ports to the packet filter.

By default, a bridge forwards frames directly. With ``br_netfilter`` and two settings of the bridge, IPv4 and IPv6
packets in these frames pass the host's filter first. The settings are made only on our bridge: the sysctls
``net.bridge.bridge-nf-call-*`` would affect every bridge of the host, some of which may need them off.
"""

from __future__ import annotations

import json
from pathlib import Path

from pools.errors import HostNotReady
from pools.host_programs import run

SWITCHES = {"nf_call_iptables": "IPv4", "nf_call_ip6tables": "IPv6"}
_MODULE = Path("/proc/sys/net/bridge")


def check_module() -> None:
    """Raise HostNotReady if bridges cannot pass packets to the filter."""
    if not _MODULE.exists():
        raise HostNotReady("Containers could reach each other: load br_netfilter (modprobe br_netfilter).")


def hand_over(bridge: str) -> list[str]:
    """Make the bridge pass packets of both families; returns what it did not, as text. Raises HostNotReady."""
    check_module()
    if wrong := problems(bridge):
        on = [word for switch in SWITCHES for word in (switch, "1")]
        result = run(["ip", "link", "set", "dev", bridge, "type", "bridge", *on])
        if result.returncode != 0:
            raise HostNotReady(f"The bridge {bridge} cannot be set up: {result.stderr.strip()[:300]}")
    return wrong


def problems(bridge: str) -> list[str]:
    """Which packets between ports of the bridge bypass the filter, as text. Raises HostNotReady."""
    result = run(["ip", "-json", "-details", "link", "show", "dev", bridge])
    if result.returncode != 0 and "does not exist" in result.stderr:  # so it has no ports
        return []
    if result.returncode != 0:
        raise HostNotReady(f"The bridge {bridge} cannot be read: {result.stderr.strip()[:300]}")
    switches = json.loads(result.stdout)[0]["linkinfo"]["info_data"]
    return [
        f"the bridge {bridge} hands no {family} to the packet filter"
        for name, family in SWITCHES.items()
        if not switches[name]
    ]
