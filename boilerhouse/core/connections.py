"""The connections of a web process: how many there are, whose they are, and which of them end so that others find room.

Anybody can open connections, and each takes one of the process's files. So their number is bounded. Those that only
wait, and have shown neither key nor session, make room for new ones: the ones of the address with the most of them
first. Whoever sends a request at once is answered, however many others hold connections open.
"""

from __future__ import annotations

import ipaddress
import resource
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cached_property, lru_cache
from typing import Any

from django.conf import settings

IDLE_S = 60.0
"""How long a connection may stay between two requests."""
LINGER_S = 2.0
"""How long a client that was answered before its body had come may take to read the answer."""
YOUNG_S = 1.0
"""A connection that was just made has its request still on the way."""
STUCK_S = 5.0
"""A stranger's request takes no longer, unless the stranger does not read the answer."""
RESERVE = 32
"""Connections beyond the limit that the node itself and its proxies may make: health is asked of a full process."""
OTHER_FILES = 256
"""Files that the process needs besides connections: the database, the engine, logs."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Phase(Enum):
    HEAD = auto()
    """It waits for a request."""
    BODY = auto()
    """It waits for the rest of a request's body."""
    ASKED = auto()
    """A request is worked on, or it has become a socket."""
    LINGER = auto()
    """It was answered for good and is about to be closed."""


@dataclass(eq=False)
class Connection:
    """What is known of one; ``abort`` closes it at once, ``channel`` is the server's own object for it."""

    peer: str
    abort: Callable[[], None]
    channel: Any = None
    address: str = ""
    """Whom it counts for; empty for a proxy of ours between two requests."""
    phase: Phase = Phase.HEAD
    made_at: float = field(default_factory=time.monotonic)
    since: float = field(default_factory=time.monotonic)
    """When the phase began, or the head that is coming in."""
    has_begun: bool = False
    """Whether a part of the head is here."""
    has_answered: bool = False
    is_known: bool = False
    """Whether it has shown a living key or session; set by any thread."""

    def enter(self, phase: Phase) -> None:
        self.phase, self.since, self.has_begun = phase, time.monotonic(), False

    def deadline(self) -> float | None:
        """When its client has taken too long; None: never."""
        match self.phase:
            case Phase.HEAD:
                is_kept_alive = self.has_answered and not self.has_begun
                return self.since + (IDLE_S if is_kept_alive else settings.BOILERHOUSE_HEAD_TIMEOUT_S)
            case Phase.BODY:
                return self.since + settings.BOILERHOUSE_BODY_TIMEOUT_S
            case Phase.LINGER:
                return self.since + LINGER_S
        return None


class Connections:
    """All of a process; used in its event loop only."""

    def __init__(self) -> None:
        self._all: dict[Hashable, Connection] = {}

    @cached_property
    def most(self) -> int:
        """How many there may be: as the settings say, and no more than the process has files for."""
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return max(1, min(settings.BOILERHOUSE_MAX_CONNECTIONS, files - OTHER_FILES))

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._all.values()))

    def __len__(self) -> int:
        return len(self._all)

    def add(self, key: Hashable, connection: Connection) -> None:
        connection.address = "" if is_trusted(connection.peer) else connection.peer
        self._all[key] = connection

    def of(self, key: Hashable) -> Connection | None:
        return self._all.get(key)

    def remove(self, key: Hashable) -> None:
        self._all.pop(key, None)

    def make_room(self, peer: str) -> bool:
        """Whether one more from there may come in; others that only wait may end for it."""
        now = time.monotonic()
        if peer and not is_trusted(peer):
            self._shed_of(peer, now)
        if len(self._all) < self.most:
            return True
        self._shed(now)
        return len(self._all) < self.most + (RESERVE if is_trusted(peer) else 0)

    def has_too_many_bodies(self, address: str) -> bool:
        """Whether so many bodies are on their way from there that another must wait."""
        reading = sum(one.address == address and one.phase is Phase.BODY for one in self._all.values())
        return bool(address) and reading > settings.BOILERHOUSE_MAX_CONNECTIONS_PER_ADDRESS

    def overdue(self) -> list[Connection]:
        now = time.monotonic()
        return [one for one in self._all.values() if (deadline := one.deadline()) is not None and deadline < now]

    def _shed_of(self, address: str, now: float) -> None:
        waiting = [(key, one) for key, one in self._all.items() if one.address == address and _waits(one)]
        if len(waiting) >= settings.BOILERHOUSE_MAX_CONNECTIONS_PER_ADDRESS:
            key, longest = min(waiting, key=lambda item: item[1].since)
            if now - longest.since > YOUNG_S:
                self._end(key, longest)

    def _shed(self, now: float) -> None:
        """End a twentieth of all; nobody's who is known before everybody's who is not."""
        counts = Counter(one.address for one in self._all.values() if one.address and not one.is_known)
        batch = max(1, self.most // 20)
        strangers = [item for item in self._all.items() if _may_end(item[1], counts, now)]
        strangers.sort(key=lambda item: (-counts[item[1].address], item[1].since))
        if not strangers:
            strangers = [item for item in self._all.items() if _idles(item[1]) and now - item[1].since > YOUNG_S]
            strangers.sort(key=lambda item: item[1].since)
        for key, one in strangers[:batch]:
            self._end(key, one)

    def _end(self, key: Hashable, one: Connection) -> None:
        del self._all[key]
        one.abort()


def _waits(one: Connection) -> bool:
    return not one.is_known and one.phase is not Phase.ASKED


def _idles(one: Connection) -> bool:
    return one.phase in (Phase.HEAD, Phase.LINGER)


def _may_end(one: Connection, counts: Counter[str], now: float) -> bool:
    if one.is_known or not one.address:
        return False
    age = now - one.since
    if one.phase is Phase.ASKED:
        return age > STUCK_S and counts[one.address] > settings.BOILERHOUSE_MAX_CONNECTIONS_PER_ADDRESS
    return age > YOUNG_S or counts[one.address] > settings.BOILERHOUSE_MAX_CONNECTIONS_PER_ADDRESS


def is_trusted(peer: str) -> bool:
    """Whether a proxy of ours is there (BOILERHOUSE_TRUSTED_PROXIES), or the node itself by a Unix socket."""
    return not peer or _is_within(peer, tuple(settings.BOILERHOUSE_TRUSTED_PROXIES))


@lru_cache(4096)  # asked several times for each request
def _is_within(peer: str, networks: tuple[str, ...]) -> bool:
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    plain = getattr(address, "ipv4_mapped", None) or address
    return any(plain in ipaddress.ip_network(one, strict=False) for one in networks)


def forwarded(peer: str, chain: str) -> str:
    """The client's own address: as a trusted proxy names it last in ``X-Forwarded-For``, else the peer's."""
    if chain and is_trusted(peer):
        try:
            return str(ipaddress.ip_address(chain.rsplit(",", 1)[-1].strip()))
        except ValueError:
            return peer
    return peer


def address_of(scope: dict[str, Any]) -> str:
    """The client's own address, as far as a trusted proxy gives it."""
    peer = (scope.get("client") or ("",))[0]
    chain = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for").decode("latin-1")
    return forwarded(peer, chain)


def vouch(request: Any) -> None:
    """The request's connection has shown a living key or session: it does not end for those of strangers."""
    vouch_for(_scope(request))


def vouch_for(scope: dict[str, Any]) -> None:
    """The same of a socket's scope."""
    if (connection := scope.get("boilerhouse.connection")) is not None:
        connection.is_known = True


def refusal_of(request: Any) -> Any:
    """Why the request's body was not read (``core.heads.Refusal``), or None."""
    return _scope(request).get("boilerhouse.refusal")


def _scope(request: Any) -> dict[str, Any]:
    scope: dict[str, Any] = getattr(request, "scope", None) or {}
    return scope


def take_all_files() -> int:
    """Have as many files as the system permits this process; returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
