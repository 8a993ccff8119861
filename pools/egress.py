"""Network policies: where a container may send packets, and whether one policy is within another."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, Self

from boilerhouse.core.errors import FieldError
from pools.addresses import METADATA

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

NEVER: tuple[Network, ...] = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3",
            "::/8", "fe80::/10", "fec0::/10", "ff00::/8", "2001::/32", "2002::/16",
        ),
    )
) + tuple(ipaddress.ip_network(one) for one in sorted(METADATA, key=str))  # fmt: skip
"""Destinations that no policy opens: this host, loopback, link-local, multicast, reserved, the clouds' metadata
services, and IPv6 addresses that embed IPv4 addresses (mapped, NAT64, 6to4, Teredo) and would bypass IPv4 rules."""
PRIVATE: tuple[Network, ...] = tuple(
    map(
        ipaddress.ip_network,
        ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.0.0.0/24", "192.168.0.0/16", "198.18.0.0/15", "fc00::/7"),
    )
)
"""Closed unless a policy names them."""
MAX_ENTRIES = 64
WIDEST = {4: 8, 6: 3}
"""The shortest prefix of a range in a list; for wider ranges, use mode ``open``."""
HOST_NAME = re.compile(
    r"(?=[^:]{1,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+(?!\d+\Z)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
)


class Mode(StrEnum):
    NONE = "none"
    LIST = "list"
    INTERNET = "internet"
    OPEN = "open"


WIDTH = {mode: width for width, mode in enumerate(Mode)}
"""Each mode also opens what the modes before it open."""


class BadEntry(ValueError):
    """The message says what is wrong with the entry."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A destination that a policy opens: a range of addresses or a host name, with one port or all."""

    network: Network | None
    name: str = ""
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse an entry. Raises BadEntry."""
        if text.startswith("[") or text.count(":") > 1:
            return cls(*_of_ipv6(text))
        place, colon, port_text = text.partition(":")
        port = _port(port_text) if colon else None
        try:
            network = ipaddress.IPv4Network(place)
        except ipaddress.NetmaskValueError as error:
            raise BadEntry("The prefix of a range must be a number from 8 to 32, as in 192.0.2.0/24.") from error
        except ValueError as error:
            return cls(None, _host_name(place, port, error), port)
        if not re.fullmatch(r"[0-9.]+(/[0-9]{1,2})?", place):
            raise BadEntry("Write a range with its prefix length, as in 192.0.2.0/24.")
        _check_range(network)
        return cls(network, "", port)

    @property
    def is_ipv6(self) -> bool:
        return self.network is not None and self.network.version == 6

    def covers(self, other: Entry) -> bool:
        """Whether this entry opens everything that ``other`` opens."""
        if self.port is not None and self.port != other.port:
            return False
        if self.network is None or other.network is None:
            return self.name == other.name and self.network is other.network
        return _within(other.network, self.network)

    def __str__(self) -> str:
        if self.network is None:
            place = self.name
        else:
            is_one = self.network.prefixlen == self.network.max_prefixlen
            place = str(self.network.network_address if is_one else self.network)
            if self.network.version == 6 and self.port is not None:
                place = f"[{place}]"
        return place if self.port is None else f"{place}:{self.port}"


@lru_cache(4096)
def _known_entry(text: str) -> Entry:
    """Cached, because all containers' policies are read again whenever one of them changes."""
    return Entry.parse(text)


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text, re.ASCII) or not 1 <= int(text) <= 65_535:
        raise BadEntry("The port must be a number from 1 to 65535.")
    return int(text)


def _of_ipv6(text: str) -> tuple[Network, str, int | None]:
    """Parse ``2001:db8::/32`` or ``[2001:db8::1]:443``. Raises BadEntry."""
    match = re.fullmatch(r"\[([0-9A-Fa-f:./]+)\]:(.*)|([0-9A-Fa-f:./]+)", text)
    if match is None:
        raise BadEntry(
            "Write an IPv6 address, a range such as 2001:db8::/32, or an address with a port such as [2001:db8::1]:443."
        )
    place = match[1] or match[3]
    port = None if match[1] is None else _port(match[2])
    try:
        network = ipaddress.IPv6Network(place)
    except ValueError as error:
        raise BadEntry(_words_of_ipv6(place, error)) from error
    _check_range(network)
    return network, "", port


def _words_of_ipv6(place: str, error: ValueError) -> str:
    if "has host bits set" in str(error):
        within = ipaddress.IPv6Network(place, strict=False)
        return f"This is an address within a range; write {within} for the range."
    return "Not an IPv6 address or range such as 2001:db8::/32."


def _host_name(place: str, port: int | None, error: ValueError) -> str:
    name = place.lower().removesuffix(".")
    if HOST_NAME.fullmatch(name):
        if port is None:
            raise BadEntry(f"A name needs a port, as in {name}:443.")
        return name
    if "has host bits set" in str(error):
        within = ipaddress.IPv4Network(place, strict=False)
        raise BadEntry(f"This is an address within a range; write {within} for the range.")
    raise BadEntry("Not an address, a range or the full name of a host, such as 192.0.2.0/24 or example.com:443.")


def may_be_named(network: Network) -> bool:
    """Whether it is not entirely within a range that is always closed."""
    return not any(_within(network, closed) for closed in NEVER)


def _check_range(network: Network) -> None:
    if not may_be_named(network):
        raise BadEntry("Loopback, link-local, multicast, reserved and metadata addresses are always closed.")
    if network.prefixlen < WIDEST[network.version]:
        raise BadEntry(
            f"The prefix of a range must be at least {WIDEST[network.version]}. To open everything, use mode open."
        )


def _within(network: Network, outer: Network) -> bool:
    if isinstance(network, ipaddress.IPv4Network):
        return isinstance(outer, ipaddress.IPv4Network) and network.subnet_of(outer)
    return isinstance(outer, ipaddress.IPv6Network) and network.subnet_of(outer)


@dataclass(frozen=True, slots=True)
class Egress:
    """A policy: a mode, and additional destinations."""

    mode: Mode = Mode.INTERNET
    allow: tuple[Entry, ...] = ()

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        return cls(Mode(data["mode"]), tuple(map(_known_entry, data.get("allow", ()))))

    def to_json(self) -> dict[str, Any]:
        return {"mode": self.mode.value, "allow": list(map(str, self.allow))}

    @property
    def names(self) -> frozenset[str]:
        return frozenset(entry.name for entry in self.allow if entry.network is None)

    def errors(self) -> list[FieldError]:
        """Errors of the policy by itself, with pointers into it."""
        if self.allow and self.mode in (Mode.NONE, Mode.OPEN):
            detail = f"Mode {self.mode} takes no allow list. Leave it out, or use mode list or internet."
            return [FieldError("/allow", detail, "not_allowed")]
        if self.mode != Mode.INTERNET:
            return []
        detail = "A name opens only public addresses, which this mode opens already. Leave it out, or use mode list."
        return [
            FieldError(f"/allow/{index}", detail, "not_allowed")
            for index, entry in enumerate(self.allow)
            if entry.network is None
        ]

    def wider_than(self, outer: Egress, whose: str = "The pool's policy") -> list[FieldError]:
        """What it opens that ``outer`` does not, with pointers into it; empty if it is within ``outer``."""
        if WIDTH[self.mode] > WIDTH[outer.mode]:
            return [FieldError("/mode", f"{whose} is {outer.mode} and can only be narrowed.", "wider")]
        detail = f"{whose} does not open this entry and can only be narrowed."
        return [
            FieldError(f"/allow/{index}", detail, "wider")
            for index, entry in enumerate(self.allow)
            if not _is_open(entry, outer)
        ]


DEFAULT = Egress()
"""The policy of a pool that sets none."""


def _is_open(entry: Entry, outer: Egress) -> bool:
    if outer.mode == Mode.OPEN or any(allowance.covers(entry) for allowance in outer.allow):
        return True
    if outer.mode != Mode.INTERNET:
        return False
    return entry.network is None or (entry.network.version == 4 and is_public(entry.network))


def is_public(network: Network) -> bool:
    """Whether the range is public; parts of it that are always closed stay closed."""
    # Two ranges overlap if one is within the other.
    apart = (not _within(network, closed) and not _within(closed, network) for closed in PRIVATE)
    return all(apart) and may_be_named(network)
