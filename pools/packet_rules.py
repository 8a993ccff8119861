"""The packet filter's rules in nft's syntax: what containers may send to whom, and which replies may come back."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from boilerhouse.core import deployment
from pools import egress
from pools.egress import Egress, Mode
from pools.runtime.base import Network

FAMILIES = ("inet", "bridge")
TYPES = {4: "ipv4_addr", 6: "ipv6_addr"}
RANGES = {"never": 4, "private": 4, "never6": 6}
"""Sets of ranges, and the IP version of each."""


@dataclass(frozen=True, slots=True)
class _Way:
    """How the rules of a policy match the remote end of a packet in one direction."""

    name: str
    place: str
    ports: tuple[str, ...]
    closed: str
    version: int
    verdicts: str
    """The map from a container's address to the chain that judges its packets."""

    @property
    def suffix(self) -> str:
        return "6" if self.version == 6 else ""


_SENT = ("tcp dport {port}", "udp dport {port}")
# Errors come from any router on the path; they concern the connection in their payload, which decides about them.
_GOT = ("tcp sport {port}", "udp sport {port}", "ct state related")
LOCAL = ipaddress.IPv6Network("fc00::/7")
"""Addresses that are routed only inside one network."""
WAYS = (
    _Way("to", "ip daddr", _SENT, "refused", 4, "policies"),
    _Way("from", "ct reply ip saddr", _GOT, "cut", 4, "answers"),
    _Way("to6", "ip6 daddr", _SENT, "refused", 6, "policies6"),
    _Way("from6", "ct reply ip6 saddr", _GOT, "cut", 6, "answers6"),
)


@dataclass(frozen=True, slots=True)
class Guarded:
    """A container's address and its policy."""

    address: str
    policy: Egress
    resolvers: tuple[str, ...]
    narrowing: Egress | None = None
    """An additional condition of accepted packets."""
    address6: str = ""
    """Empty if the network has no IPv6."""


def table() -> str:
    return f"boilerhouse_{deployment.deployment_id()}"


def ruleset(network: Network, containers: Sequence[Guarded]) -> str:
    """The tables in nft's syntax; they are replaced in one transaction."""
    chains: dict[str, list[str]] = {}
    verdicts: dict[str, list[str]] = {way.verdicts: [] for way in WAYS}
    leads_to: dict[tuple[object, ...], str] = {}
    for container in containers:
        for way in WAYS:
            address = container.address if way.version == 4 else container.address6
            key = way, container.policy, container.resolvers, container.narrowing
            if address and key not in leads_to:
                leads_to[key] = _chains_of(container, way, chains)
            if address:
                verdicts[way.verdicts].append(f"{address} : jump {leads_to[key]}")
    parts = {"inet": _packets(network, chains, verdicts), "bridge": _frames(network)}
    return "".join(f"table {family} {table()} {{\n{''.join(parts[family])}}}\n" for family in FAMILIES)


def _packets(network: Network, chains: dict[str, list[str]], verdicts: dict[str, list[str]]) -> list[str]:
    bridge = f'"{network.bridge}"'
    named = {"never": (*egress.NEVER, network.subnet, network.subnet6), "private": egress.PRIVATE}
    established = "ct state established,related ct direction reply"
    return [
        *(_set(name, version, map(str, named[name.removesuffix("6")])) for name, version in RANGES.items()),
        # Each chain comes after those that it jumps to.
        _chain("refused", ["meta l4proto tcp reject with tcp reset", "reject with icmpx type admin-prohibited"]),
        _chain("cut", ["meta l4proto tcp reject with tcp reset", "drop"]),
        *(_chain(name, rules) for name, rules in chains.items()),
        *(_map(way, verdicts[way.verdicts]) for way in WAYS),
        _chain("outward", ["ip saddr vmap @policies", "ip6 saddr vmap @policies6", "drop"]),
        _chain(
            "inward",
            [
                f"{established} ct original ip saddr vmap @answers",
                f"{established} ct original ip6 saddr vmap @answers6",
                "drop",
            ],
        ),
        _chain(
            "host", [*_neighbours(network), "meta nfproto ipv6 drop", "ct state established,related accept", "drop"]
        ),
        _chain("input", [f"iifname {bridge} goto host"], hook="input"),
        _chain("forward", [f"iifname {bridge} jump outward", f"oifname {bridge} goto inward"], hook="forward"),
        *_masquerade(network),
    ]


def _neighbours(network: Network) -> list[str]:
    """With IPv6, containers exchange only neighbor discovery with the node."""
    return ["icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept"] if network.subnet6 else []


def _masquerade(network: Network) -> list[str]:
    """Source NAT of IPv6 addresses that only the node knows; no engine is required to do it."""
    if not network.subnet6 or not ipaddress.IPv6Network(network.subnet6).subnet_of(LOCAL):
        return []
    rule = f'ip6 saddr {network.subnet6} oifname != "{network.bridge}" masquerade'
    return [_chain("leaving", [rule], hook="postrouting", kind="nat", priority=100)]


def _frames(network: Network) -> list[str]:
    subnet = network.subnet
    closed = [f"ip saddr {subnet} ip daddr {subnet}", f"arp saddr ip {subnet}", f"arp daddr ip {subnet}"]
    # Rules of this family apply to every bridge of the host, so they name our addresses. Other packets between
    # containers, including IPv6 from link-local addresses, pass the chain "outward" (bridging.py).
    return [_chain("forward", [f"{condition} drop" for condition in closed], hook="forward")]


def _chains_of(container: Guarded, way: _Way, chains: dict[str, list[str]]) -> str:
    """Add the chains for packets in this direction; returns the name of the first one."""
    last = "accept"
    if container.narrowing is not None:
        last = f"goto {_keep(chains, way, _policy(container.narrowing, container.resolvers, way, last))}"
    return _keep(chains, way, _policy(container.policy, container.resolvers, way, last))


def _keep(chains: dict[str, list[str]], way: _Way, rules: list[str]) -> str:
    """The name of the chain with these rules, shared by all containers with the same rules."""
    name = f"{way.name}_{hashlib.sha256(chr(10).join(rules).encode()).hexdigest()[:16]}"
    chains.setdefault(name, rules)
    return name


def _policy(policy: Egress, entries: Iterable[str], way: _Way, passed: str) -> list[str]:
    """The rules for the container's packets; ``passed`` is the verdict for packets that the policy allows."""
    if policy.mode == Mode.NONE:
        return [f"goto {way.closed}"]
    rules = [f"{way.place} @never{way.suffix} goto {way.closed}"]
    for entry in policy.allow:
        if entry.network is not None and entry.network.version == way.version:
            rules += _opened(way, str(entry.network), entry.port, passed)
    if policy.mode == Mode.LIST:
        return [*rules, f"goto {way.closed}"]
    own = (address for address in entries if ipaddress.ip_address(address).version == way.version)
    rules = [rule for address in own for rule in _opened(way, address, 53, passed)] + rules
    if policy.mode == Mode.OPEN:
        return [*rules, passed]
    if way.version == 6:  # mode internet concerns IPv4; of IPv6, it opens only named destinations
        return [*rules, f"goto {way.closed}"]
    return [*rules, f"{way.place} @private goto {way.closed}", passed]


def _opened(way: _Way, place: str, port: int | None, passed: str) -> list[str]:
    ports = ("",) if port is None else (port_match.format(port=port) for port_match in way.ports)
    return [" ".join(filter(None, (way.place, place, port_match, passed))) for port_match in ports]


def _chain(name: str, rules: Iterable[str], *, hook: str = "", kind: str = "filter", priority: int = -10) -> str:
    head = f"type {kind} hook {hook} priority {priority}; policy accept;\n" if hook else ""
    return f"chain {name} {{\n{head}{''.join(f'{rule}{chr(10)}' for rule in rules)}}}\n"


def declared() -> dict[str, str]:
    """The sets and maps of the packet table, each as an empty declaration."""
    sets = {name: f"set {name} {{ {_ranges(version)} }}" for name, version in RANGES.items()}
    return sets | {way.verdicts: f"map {way.verdicts} {{ type {TYPES[way.version]} : verdict; }}" for way in WAYS}


def _ranges(version: int) -> str:
    return f"type {TYPES[version]}; flags interval; auto-merge;"


def _set(name: str, version: int, ranges: Iterable[str]) -> str:
    own = [network for network in ranges if network and ipaddress.ip_network(network).version == version]
    return f"set {name} {{ {_ranges(version)} elements = {{ {', '.join(own)} }} }}\n"


def _map(way: _Way, verdicts: list[str]) -> str:
    elements = f"elements = {{ {', '.join(verdicts)} }}" if verdicts else ""
    return f"map {way.verdicts} {{ type {TYPES[way.version]} : verdict; {elements} }}\n"
