"""Network policies: where a container may send packets to, and whether one policy is within another."""

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
"""What no policy opens: this host, loopback, link-local, multicast, reserved, the clouds' metadata services, and
addresses of IPv6 that stand for some of IPv4 (mapped, NAT64, 6to4, Teredo), as which nobody would judge them."""
PRIVATE: tuple[Network, ...] = tuple(
    map(
        ipaddress.ip_network,
        ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.0.0.0/24", "192.168.0.0/16", "198.18.0.0/15", "fc00::/7"),
    )
)
"""Closed unless a policy names them."""
MAX_ENTRIES = 64
WIDEST = {4: 8, 6: 3}
"""The shortest prefix of a range in a list: what is wider is mode ``open``."""
HOST_NAME = re.compile(
    r"(?=[^:]{1,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+(?!\d+\Z)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
)


class Mode(StrEnum):
    NONE = "none"
    LIST = "list"
    INTERNET = "internet"
    OPEN = "open"


WIDTH = {mode: width for width, mode in enumerate(Mode)}
"""Each mode opens what those before it may open."""


class BadEntry(ValueError):
    """The text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One place that a policy opens: a range of addresses or a host's name, and a port or all."""

    network: Network | None
    name: str = ""
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises BadEntry."""
        if text.startswith("[") or text.count(":") > 1:
            return cls(*_of_ipv6(text))
        place, colon, port_text = text.partition(":")
        port = _port(port_text) if colon else None
        try:
            network = ipaddress.IPv4Network(place)
        except ipaddress.NetmaskValueError as error:
            raise BadEntry("The prefix of a range is a number from 8 to 32, as in 192.0.2.0/24.") from error
        except ValueError as error:
            return cls(None, _host_name(place, port, error), port)
        if not re.fullmatch(r"[0-9.]+(/[0-9]{1,2})?", place):
            raise BadEntry("Write a range with the length of its prefix, as in 192.0.2.0/24.")
        _check_range(network)
        return cls(network, "", port)

    @property
    def is_ipv6(self) -> bool:
        return self.network is not None and self.network.version == 6

    def covers(self, other: Entry) -> bool:
        """Whether everything that ``other`` opens is open by this one."""
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
    """Every container's policy is read again whenever one of them changes."""
    return Entry.parse(text)


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text, re.ASCII) or not 1 <= int(text) <= 65_535:
        raise BadEntry("A port is a number from 1 to 65535.")
    return int(text)


def _of_ipv6(text: str) -> tuple[Network, str, int | None]:
    """Of ``2001:db8::/32`` or ``[2001:db8::1]:443``. Raises BadEntry."""
    found = re.fullmatch(r"\[([0-9A-Fa-f:./]+)\]:(.*)|([0-9A-Fa-f:./]+)", text)
    if found is None:
        raise BadEntry("Write an IPv6 address, a range such as 2001:db8::/32, or one with a port as [2001:db8::1]:443.")
    place = found[1] or found[3]
    port = None if found[1] is None else _port(found[2])
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
    return "This is no IPv6 address, and no range of them such as 2001:db8::/32."


def _host_name(place: str, port: int | None, error: ValueError) -> str:
    name = place.lower().removesuffix(".")
    if HOST_NAME.fullmatch(name):
        if port is None:
            raise BadEntry(f"Give a port with a name, as in {name}:443.")
        return name
    if "has host bits set" in str(error):
        within = ipaddress.IPv4Network(place, strict=False)
        raise BadEntry(f"This is an address within a range; write {within} for the range.")
    raise BadEntry("Give an address, a range, or the whole name of a host, such as 192.0.2.0/24 or example.com:443.")


def may_be_named(network: Network) -> bool:
    """Whether it is not closed for good as a whole."""
    return not any(_within(network, closed) for closed in NEVER)


def _check_range(network: Network) -> None:
    if not may_be_named(network):
        raise BadEntry("No policy opens loopback, link-local, multicast and reserved addresses, and metadata services.")
    if network.prefixlen < WIDEST[network.version]:
        raise BadEntry(f"A range has a prefix of {WIDEST[network.version]} at least; the mode open has no bounds.")


def _within(network: Network, outer: Network) -> bool:
    if isinstance(network, ipaddress.IPv4Network):
        return isinstance(outer, ipaddress.IPv4Network) and network.subnet_of(outer)
    return isinstance(outer, ipaddress.IPv6Network) and network.subnet_of(outer)


@dataclass(frozen=True, slots=True)
class Egress:
    """A policy: a mode, and what it opens besides."""

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
        """What is wrong with the policy by itself, with pointers into it."""
        if self.allow and self.mode in (Mode.NONE, Mode.OPEN):
            detail = f"The mode {self.mode} takes no list; leave it out, or choose list or internet."
            return [FieldError("/allow", detail, "not_allowed")]
        if self.mode != Mode.INTERNET:
            return []
        detail = "Names stand for public addresses, which this mode opens anyway. Leave it out, or choose list."
        return [
            FieldError(f"/allow/{index}", detail, "not_allowed")
            for index, entry in enumerate(self.allow)
            if entry.network is None
        ]

    def wider_than(self, outer: Egress, whose: str = "The pool's policy") -> list[FieldError]:
        """What it would open that ``outer`` does not, with pointers into it; empty where it is within ``outer``."""
        if WIDTH[self.mode] > WIDTH[outer.mode]:
            return [FieldError("/mode", f"{whose} is {outer.mode}; it can only be narrowed.", "wider")]
        detail = f"{whose} does not open it; it can only be narrowed."
        return [
            FieldError(f"/allow/{index}", detail, "wider")
            for index, entry in enumerate(self.allow)
            if not _is_open(entry, outer)
        ]


DEFAULT = Egress()
"""What a pool has that says nothing."""


def _is_open(entry: Entry, outer: Egress) -> bool:
    if outer.mode == Mode.OPEN or any(one.covers(entry) for one in outer.allow):
        return True
    if outer.mode != Mode.INTERNET:
        return False
    return entry.network is None or (entry.network.version == 4 and is_public(entry.network))


def is_public(network: Network) -> bool:
    """Whether the internet routes it; what is closed for good within it stays closed."""
    # Two ranges overlap where one is within the other.
    apart = (not _within(network, closed) and not _within(closed, network) for closed in PRIVATE)
    return all(apart) and may_be_named(network)
