"""The rules of the packet filter as nft reads them: what containers may send to whom, and what may come back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from boilerhouse.core import deployment
from pools import egress
from pools.egress import Egress, Mode
from pools.runtime.base import Network

FAMILIES = ("inet", "bridge")
VERDICTS = ("policies", "answers")
"""The maps that lead from a container's address to what judges the packets that it sends, and those that it gets."""


@dataclass(frozen=True, slots=True)
class _Way:
    """How the rules of a policy spell the far end of a packet that goes one way."""

    name: str
    place: str
    ports: tuple[str, ...]
    closed: str


_TO = _Way("to", "ip daddr", ("tcp dport {port}", "udp dport {port}"), "refused")
_FROM = _Way(
    # Errors come from any router on the way; they are about the connection that they name, and so to be judged by it.
    "from", "ct reply ip saddr", ("tcp sport {port}", "udp sport {port}", "ct state related"), "cut"
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Guarded:
    """A container's address and what it may reach."""

    address: str
    policy: Egress
    resolvers: tuple[str, ...]
    narrowing: Egress | None = None
    """What must let a packet pass besides."""


def table() -> str:
    return f"boilerhouse_{deployment.deployment_id()}"


def ruleset(network: Network, containers: Sequence[Guarded]) -> str:
    """The tables as nft reads them; replacing them is one transaction."""
    chains: dict[str, list[str]] = {}
    verdicts: dict[str, list[str]] = {name: [] for name in VERDICTS}
    leads_to: dict[tuple[object, ...], tuple[str, ...]] = {}
    for one in containers:
        key = one.policy, one.resolvers, one.narrowing
        if key not in leads_to:
            leads_to[key] = tuple(_chains_of(one, way, chains) for way in (_TO, _FROM))
        for name, chain in zip(VERDICTS, leads_to[key], strict=True):
            verdicts[name].append(f"{one.address} : jump {chain}")
    bridge, subnet = f'"{network.bridge}"', network.subnet
    never = ", ".join(map(str, egress.NEVER))
    packets = [
        _set("never", f"type ipv4_addr; flags interval; auto-merge; elements = {{ {never}, {subnet} }}"),
        _set(
            "private",
            f"type ipv4_addr; flags interval; auto-merge; elements = {{ {', '.join(map(str, egress.PRIVATE))} }}",
        ),
        # Each chain stands after those that it leads to.
        _chain("refused", ["meta l4proto tcp reject with tcp reset", "reject with icmpx type admin-prohibited"]),
        _chain("cut", ["meta l4proto tcp reject with tcp reset", "drop"]),
        *(_chain(name, rules) for name, rules in chains.items()),
        *(_map(name, elements) for name, elements in verdicts.items()),
        _chain("outward", ["meta nfproto != ipv4 drop", "ip saddr vmap @policies", "drop"]),
        _chain(
            "inward", ["ct state established,related ct direction reply ct original ip saddr vmap @answers", "drop"]
        ),
        _chain("host", ["meta nfproto ipv6 drop", "ct state established,related accept", "drop"]),
        _chain("input", [f"iifname {bridge} goto host"], hook="input"),
        _chain("forward", [f"iifname {bridge} jump outward", f"oifname {bridge} goto inward"], hook="forward"),
    ]
    frames = [
        _chain(
            "forward",
            [f"ip saddr {subnet} ip daddr {subnet} drop", f"arp saddr ip {subnet} drop", f"arp daddr ip {subnet} drop"],
            hook="forward",
        )
    ]
    return "".join(
        f"table {family} {table()} {{\n{''.join(parts)}}}\n"
        for family, parts in zip(FAMILIES, (packets, frames), strict=True)
    )


def _chains_of(one: Guarded, way: _Way, chains: dict[str, list[str]]) -> str:
    """Add the chains that judge its packets of this way; the name of the first one."""
    last = "accept"
    if one.narrowing is not None:
        last = f"goto {_keep(chains, way, _policy(one.narrowing, one.resolvers, way, last))}"
    return _keep(chains, way, _policy(one.policy, one.resolvers, way, last))


def _keep(chains: dict[str, list[str]], way: _Way, rules: list[str]) -> str:
    """The name of the chain with these rules, which all containers with the same ones share."""
    name = f"{way.name}_{hashlib.sha256(chr(10).join(rules).encode()).hexdigest()[:16]}"
    chains.setdefault(name, rules)
    return name


def _policy(policy: Egress, asked: Iterable[str], way: _Way, passed: str) -> list[str]:
    """The rules that a packet of the container meets; ``passed`` is what becomes of one that the policy lets pass."""
    if policy.mode == Mode.NONE:
        return [f"goto {way.closed}"]
    rules = [f"{way.place} @never goto {way.closed}"]
    for entry in policy.allow:
        if entry.network is not None:
            rules += _opened(way, str(entry.network), entry.port, passed)
    if policy.mode == Mode.LIST:
        return [*rules, f"goto {way.closed}"]
    dns = [rule for address in asked if ":" not in address for rule in _opened(way, address, 53, passed)]
    closed = [f"{way.place} @private goto {way.closed}"] if policy.mode == Mode.INTERNET else []
    return [*dns, *rules, *closed, passed]


def _opened(way: _Way, place: str, port: int | None, passed: str) -> list[str]:
    ports = ("",) if port is None else (one.format(port=port) for one in way.ports)
    return [" ".join(filter(None, (way.place, place, one, passed))) for one in ports]


def _chain(name: str, rules: Iterable[str], *, hook: str = "") -> str:
    head = f"type filter hook {hook} priority -10; policy accept;\n" if hook else ""
    return f"chain {name} {{\n{head}{''.join(f'{rule}{chr(10)}' for rule in rules)}}}\n"


def _set(name: str, body: str) -> str:
    return f"set {name} {{ {body} }}\n"


def _map(name: str, verdicts: list[str]) -> str:
    elements = f"elements = {{ {', '.join(verdicts)} }}" if verdicts else ""
    return f"map {name} {{ type ipv4_addr : verdict; {elements} }}\n"
