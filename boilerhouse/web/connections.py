"""The connections of a web process: their number, their owners, and which of them are closed to make room.

Anybody can open connections, and each takes one of the process's file descriptors, so their number is limited.
Connections that only wait and have shown neither key nor session are closed for new ones, first those of the address
with the most. A client that sends a request at once is answered, however many connections others hold open.
"""

from __future__ import annotations

import ipaddress
import math
import resource
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cached_property, lru_cache
from typing import Any

from django.conf import settings

IDLE_S = 60.0
"""How long a connection may be idle between two requests."""
LINGER_S = 2.0
"""How long a client that was answered before its body arrived may take to read the response."""
YOUNG_S = 1.0
"""Grace time of a new connection, whose request may still be on the way."""
STUCK_S = 5.0
"""The time limit for a request of an unauthenticated client, unless the client does not read the response."""
RESERVE = 32
"""Connections above the limit that the node itself and its proxies may open, for health checks of a full process."""
OTHER_FILES = 256
"""File descriptors that the process needs besides connections: the database, the engine, logs."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Phase(Enum):
    HEAD = auto()
    """Waits for a request."""
    BODY = auto()
    """Waits for the rest of a request body."""
    ASKED = auto()
    """A request is being handled, or the connection has become a WebSocket."""
    LINGER = auto()
    """The final response was sent, and the connection is about to be closed."""


@dataclass(eq=False)
class Connection:
    """One connection. ``abort`` closes it immediately; ``channel`` is the server's own object."""

    peer: str
    abort: Callable[[], None]
    channel: Any = None
    address: str = ""
    """The client it counts for (``client_at``); empty for the node itself, and for one of our proxies between two
    requests."""
    phase: Phase = Phase.HEAD
    made_at: float = field(default_factory=time.monotonic)
    since: float = field(default_factory=time.monotonic)
    """When the phase, or the current request head, began."""
    has_begun: bool = False
    """Whether a part of the head has arrived."""
    has_answered: bool = False
    is_known: bool = False
    """Whether it has shown a valid key or session; set by any thread."""

    def enter(self, phase: Phase) -> None:
        self.phase, self.since, self.has_begun = phase, time.monotonic(), False

    def patience_s(self, head_s: float, body_s: float) -> float:
        """The time limit of the phase."""
        match self.phase:
            case Phase.HEAD:
                return IDLE_S if self.has_answered and not self.has_begun else head_s
            case Phase.BODY:
                return body_s
            case Phase.LINGER:
                return LINGER_S
        return math.inf


class Connections:
    """All connections of a process; used only in its event loop."""

    def __init__(self) -> None:
        self._all: dict[Hashable, Connection] = {}
        self._of_address: defaultdict[str, dict[Hashable, Connection]] = defaultdict(dict)

    @cached_property
    def most(self) -> int:
        """The maximum number: as configured, limited by the process's file descriptors."""
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return max(1, min(settings.BOILERHOUSE_MAX_CONNECTIONS, files - OTHER_FILES))

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._all.values()))

    def __len__(self) -> int:
        return len(self._all)

    def add(self, key: Hashable, connection: Connection) -> None:
        self._all[key] = connection
        self.now_for(key, "" if is_trusted(connection.peer) else connection.peer)

    def of(self, key: Hashable) -> Connection | None:
        return self._all.get(key)

    def remove(self, key: Hashable) -> None:
        if (connection := self._all.pop(key, None)) is not None:
            self._forget(key, connection.address)

    def now_for(self, key: Hashable, address: str) -> None:
        """Count the connection for this client from now on; empty: for nobody."""
        if (connection := self._all.get(key)) is not None:
            self._forget(key, connection.address)
            connection.address = client_at(address)
            if connection.address:
                self._of_address[connection.address][key] = connection

    def _forget(self, key: Hashable, address: str) -> None:
        if of_address := self._of_address.get(address):
            of_address.pop(key, None)
            if not of_address:
                del self._of_address[address]

    def make_room(self, peer: str) -> bool:
        """Whether one more connection from this client is accepted; others that only wait may be closed for it."""
        now = time.monotonic()
        if peer and not is_trusted(peer):
            self._shed_of(client_at(peer), now)
        if len(self._all) < self.most:
            return True
        self._shed(now)
        return len(self._all) < self.most + (RESERVE if is_trusted(peer) else 0)

    def has_too_many_bodies(self, address: str) -> bool:
        """Whether this client is already sending too many slow bodies."""
        before = time.monotonic() - YOUNG_S
        of_address = self._of_address.get(address, {}).values()
        slow = sum(connection.phase is Phase.BODY and connection.since < before for connection in of_address)
        return slow >= settings.BOILERHOUSE_MAX_CONNECTIONS_PER_ADDRESS

    def overdue(self) -> list[Connection]:
        """Connections whose clients have exceeded the time limit."""
        now, limits = time.monotonic(), (settings.BOILERHOUSE_HEAD_TIMEOUT_S, settings.BOILERHOUSE_BODY_TIMEOUT_S)
        return [
            connection for connection in self._all.values() if now - connection.since > connection.patience_s(*limits)
        ]

    def _shed_of(self, address: str, now: float) -> None:
        of_address = self._of_address.get(address, {})
        if len(of_address) < settings.BOILERHOUSE_MAX_CONNECTIONS_PER_ADDRESS:
            return
        waiting = [(key, connection) for key, connection in of_address.items() if _waits(connection)]
        if len(waiting) >= settings.BOILERHOUSE_MAX_CONNECTIONS_PER_ADDRESS:
            key, longest = min(waiting, key=lambda item: item[1].since)
            if now - longest.since > YOUNG_S:
                self._end(key, longest)

    def _shed(self, now: float) -> None:
        """Close a twentieth of all connections, unauthenticated ones first."""
        counts = Counter(
            connection.address for connection in self._all.values() if connection.address and not connection.is_known
        )
        batch = max(1, self.most // 20)
        strangers = [item for item in self._all.items() if _may_end(item[1], counts, now)]
        strangers.sort(key=lambda item: (-counts[item[1].address], item[1].since))
        if not strangers:
            strangers = [item for item in self._all.items() if _idles(item[1]) and now - item[1].since > YOUNG_S]
            strangers.sort(key=lambda item: item[1].since)
        for key, connection in strangers[:batch]:
            self._end(key, connection)

    def _end(self, key: Hashable, connection: Connection) -> None:
        self.remove(key)
        connection.abort()


def _waits(connection: Connection) -> bool:
    return not connection.is_known and connection.phase is not Phase.ASKED


def _idles(connection: Connection) -> bool:
    return connection.phase in (Phase.HEAD, Phase.LINGER)


def _may_end(connection: Connection, counts: Counter[str], now: float) -> bool:
    if connection.is_known or not connection.address:
        return False
    age = now - connection.since
    if connection.phase is Phase.ASKED:
        return age > STUCK_S and counts[connection.address] > settings.BOILERHOUSE_MAX_CONNECTIONS_PER_ADDRESS
    return age > YOUNG_S or counts[connection.address] > settings.BOILERHOUSE_MAX_CONNECTIONS_PER_ADDRESS


def is_trusted(peer: str) -> bool:
    """Whether the address is one of our proxies (BOILERHOUSE_TRUSTED_PROXIES), or the node itself on a Unix socket."""
    return not peer or _is_within(peer, tuple(settings.BOILERHOUSE_TRUSTED_PROXIES))


@lru_cache(4096)  # called several times per request
def _is_within(peer: str, networks: tuple[str, ...]) -> bool:
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    plain = getattr(address, "ipv4_mapped", None) or address
    return any(plain in ipaddress.ip_network(network, strict=False) for network in networks)


@lru_cache(4096)
def client_at(address: str) -> str:
    """The client that an address counts for. A host has 2^64 IPv6 addresses, so such a network counts as one."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network(f"{ip}/64", strict=False).network_address)


def client_of(request: Any) -> str:
    """The client that failed logins count for."""
    return client_at(request.META.get("REMOTE_ADDR", ""))


def forwarded(peer: str, chain: str) -> str:
    """The client's own address: the last one in a trusted proxy's ``X-Forwarded-For``, otherwise the peer's."""
    if chain and is_trusted(peer):
        try:
            return str(ipaddress.ip_address(chain.rsplit(",", 1)[-1].strip()))
        except ValueError:
            return peer
    return peer


def address_of(scope: dict[str, Any]) -> str:
    """The client that the request counts for, if a trusted proxy names it."""
    peer = (scope.get("client") or ("",))[0]
    chain = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for").decode("latin-1")
    return client_at(forwarded(peer, chain))


def vouch(request: Any) -> None:
    """Mark the connection as one with a valid key or session, so it is not closed for unauthenticated ones."""
    vouch_for(_scope(request))


def vouch_for(scope: dict[str, Any]) -> None:
    """The same for a socket's scope."""
    if (connection := scope.get("boilerhouse.connection")) is not None:
        connection.is_known = True


def refusal_of(request: Any) -> Any:
    """Why the request's body was not read (``web.request_heads.Refusal``), or None."""
    return _scope(request).get("boilerhouse.refusal")


def _scope(request: Any) -> dict[str, Any]:
    scope: dict[str, Any] = getattr(request, "scope", None) or {}
    return scope


def take_all_files() -> int:
    """Raise the limit of file descriptors as far as the system permits. Returns the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
