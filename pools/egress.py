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

Network = ipaddress.IPv4Network

NEVER = tuple(
    map(ipaddress.IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"))
) + tuple(ipaddress.IPv4Network(one) for one in sorted(METADATA, key=str) if one.version == 4)  # fmt: skip
"""What no policy opens: this host, loopback, link-local, multicast, reserved, and the clouds' metadata services."""
PRIVATE = tuple(
    map(
        ipaddress.IPv4Network,
        ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.0.0.0/24", "192.168.0.0/16", "198.18.0.0/15"),
    )
)
"""Closed unless a policy names them."""
MAX_ENTRIES = 64
WIDEST = 8
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

    def covers(self, other: Entry) -> bool:
        """Whether everything that ``other`` opens is open by this one."""
        if self.port is not None and self.port != other.port:
            return False
        if self.network is None or other.network is None:
            return self.name == other.name and self.network is other.network
        return other.network.subnet_of(self.network)

    def __str__(self) -> str:
        if self.network is None:
            place = self.name
        else:
            is_one = self.network.prefixlen == self.network.max_prefixlen
            place = str(self.network.network_address if is_one else self.network)
        return place if self.port is None else f"{place}:{self.port}"


@lru_cache(4096)
def _known_entry(text: str) -> Entry:
    """Every container's policy is read again whenever one of them changes."""
    return Entry.parse(text)


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text, re.ASCII) or not 1 <= int(text) <= 65_535:
        raise BadEntry("A port is a number from 1 to 65535. IPv6 addresses cannot be opened.")
    return int(text)


def _host_name(place: str, port: int | None, error: ValueError) -> str:
    name = place.lower().removesuffix(".")
    if HOST_NAME.fullmatch(name):
        if port is None:
            raise BadEntry(f"Give a port with a name, as in {name}:443.")
        return name
    if "has host bits set" in str(error):
        within = ipaddress.IPv4Network(place, strict=False)
        raise BadEntry(f"This is an address within a range; write {within} for the range.")
    raise BadEntry(
        "Give an IPv4 address, a range, or the whole name of a host, such as 192.0.2.0/24 or example.com:443."
    )


def _check_range(network: Network) -> None:
    if any(network.subnet_of(closed) for closed in NEVER):
        raise BadEntry("No policy opens loopback, link-local, multicast and reserved addresses, and metadata services.")
    if network.prefixlen < WIDEST:
        raise BadEntry(f"A range has a prefix of {WIDEST} at least; the mode open has no bounds.")


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
    return entry.network is None or is_public(entry.network)


def is_public(network: Network) -> bool:
    """Whether the internet routes it; what is closed for good within it stays closed."""
    return not any(network.overlaps(closed) for closed in PRIVATE) and not any(map(network.subnet_of, NEVER))
