"""Limited resources of a process, and how much of each one tenant or one key may use at a time (promise P14).

Each resource has a total limit and lower limits for a single tenant and a single key, so one that reaches its own limit
leaves capacity for others. Each process counts its own use, in memory, with the same limits. So no tenant can use up a
resource of any process.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

from django.conf import settings

from boilerhouse.core.errors import TooMany, Unavailable
from boilerhouse.telemetry.instruments import BUDGET_REFUSALS, BUDGET_USED

TENANT_ROLE = "tenant"


class Kind(StrEnum):
    TENANT = "tenant"
    """A tenant, whichever key acts for it."""
    KEY = "key"
    """A key that acts for any tenant, or a signed-in user."""
    POOL = "pool"
    """All requests that wait for the same pool."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The party whose use is counted."""

    kind: Kind
    id: str
    words: str


def tenant(tenant_id: str) -> Owner:
    return Owner(Kind.TENANT, tenant_id, f"tenant {tenant_id}")


def pool(pool_id: str) -> Owner:
    return Owner(Kind.POOL, pool_id, f"pool {pool_id}")


def user(name: str) -> Owner:
    return Owner(Kind.KEY, f"user {name}", f"user {name}")


def container(container_id: object) -> Owner:
    """The tenant assigned to the container that the request names."""
    return Owner(Kind.TENANT, f"container {container_id}", f"container {container_id}")


def owners(key: Any, *others: Owner) -> tuple[Owner, ...]:
    """The owners of a request with this API key. For a key of role tenant, these are its tenants."""
    if key.role != TENANT_ROLE:
        return (*others, Owner(Kind.KEY, f"key {key.pk}", f"key {key.name}"))
    return tuple({*others, *map(tenant, key.tenant_ids)})


class BudgetExceeded(TooMany):
    """A tenant or a key has reached its limit. Try again when some of it is free."""

    code = "budget_exceeded"
    retry_after = 1


def exceeded(resource: str, owner: Owner, used: str) -> BudgetExceeded:
    """Count a refusal for the owner and the resource, and return the error."""
    BUDGET_REFUSALS.labels(resource, owner.kind.value).inc()
    return BudgetExceeded(f"The {owner.words} has {used}, which is the limit. Try again when some have ended.")


class Hold:
    """A part of a budget, in use until ``release``, which may be called repeatedly and from any thread."""

    __slots__ = ("_give_back",)

    def __init__(self, give_back: Callable[[], None]) -> None:
        self._give_back = [give_back]

    def release(self) -> None:
        with suppress(IndexError):
            self._give_back.pop()()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Release it after the block only if the block raises."""
        try:
            yield
        except BaseException:
            self.release()
            raise

    def __enter__(self) -> Hold:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Budget:
    """The budget of one resource: ``most`` in total, and ``shares`` for one tenant and one key, by the names of their
    settings."""

    def __init__(
        self,
        name: str,
        words: str,
        most: str,
        shares: dict[Kind, str],
        full: type[Unavailable],
        *,
        is_bytes: bool = False,
    ) -> None:
        self.name, self.words, self.is_bytes = name, words, is_bytes
        self._most, self._shares, self._full = most, shares, full
        self._lock = threading.Lock()
        self._used: Counter[tuple[Kind, str]] = Counter()
        self._all = 0

    @property
    def most(self) -> int:
        return int(getattr(settings, self._most))

    def share(self, kind: Kind) -> int:
        """The limit of a single owner. It always leaves something for others, whatever the settings are."""
        return max(1, min(int(getattr(settings, self._shares[kind])), self.most - 1))

    def used(self, owner: Owner | None = None) -> int:
        """Current use of the owner, or in total."""
        return self._all if owner is None else self._used[owner.kind, owner.id]

    def enter(self, *owners: Owner, amount: int = 1) -> Hold:
        """Use this much more. Raises BudgetExceeded, or the resource's own error if the total limit is reached."""
        with self._lock:
            self._check(owners, amount)
            return self._add(owners, amount, amount)

    def check(self, *owners: Owner) -> None:
        """Raise the error that ``enter`` would raise."""
        with self._lock:
            self._check(owners, 1)

    def has_room(self, *owners: Owner) -> bool:
        """Whether ``enter`` would succeed; not counted as a refusal."""
        with self._lock:
            return not self._over(owners, 1)

    def add(self, *owners: Owner, is_shared: bool = False) -> Hold:
        """Use one more even above the limit: a shared resource costs the process nothing extra."""
        with self._lock:
            return self._add(owners, 1, 0 if is_shared else 1)

    def _add(self, owners: tuple[Owner, ...], of_each: int, of_all: int) -> Hold:
        self._all += of_all
        BUDGET_USED.labels(self.name).inc(of_all)
        for owner in owners:
            self._used[owner.kind, owner.id] += of_each
        return Hold(partial(self._give_back, owners, of_each, of_all))

    def _check(self, owners: tuple[Owner, ...], amount: int) -> None:
        for owner in self._over(owners, amount):
            if owner is not None:
                raise exceeded(self.name, owner, f"{self.used(owner)} {self.words}")
            BUDGET_REFUSALS.labels(self.name, "all").inc()
            raise self._full

    def _over(self, owners: tuple[Owner, ...], amount: int) -> list[Owner | None]:
        """The owner whose limit this much more would exceed; None stands for the total limit."""
        over: list[Owner | None] = [owner for owner in owners if self.used(owner) + amount > self.share(owner.kind)]
        return [*over, None] if self._all + amount > self.most else over

    def _give_back(self, owners: tuple[Owner, ...], of_each: int, of_all: int) -> None:
        with self._lock:
            self._all -= of_all
            BUDGET_USED.labels(self.name).dec(of_all)
            for owner in owners:
                self._used[owner.kind, owner.id] -= of_each
                if not self._used[owner.kind, owner.id]:
                    del self._used[owner.kind, owner.id]


class TooManyWaiting(Unavailable):
    """The limit of waiting requests in this process is reached."""

    code = "too_many_waiting"


class TooManyStreams(Unavailable):
    """The limit of open streams in this process is reached."""

    code = "too_many_streams"
    retry_after = 10


class TooManySlow(Unavailable):
    """The limit of requests in this process that wait for the engine or a sink is reached."""

    code = "too_many_slow"


class TooManyBodies(Unavailable):
    """The memory limit for request bodies in this process is reached."""

    code = "too_many_bodies"


class TooManyTransfers(Unavailable):
    """The limit of files in transfer in this process is reached."""

    code = "too_many_transfers"


class TooManySavedFiles(Unavailable):
    """The memory limit for files of saved state in this process is reached."""

    code = "too_many_saved_files"


def _budget(name: str, words: str, most: str, full: type[Unavailable], *kinds: Kind, is_bytes: bool = False) -> Budget:
    shares = {kind: f"{most}_PER_{kind.name}" for kind in kinds}
    return Budget(name, words, most, shares, full, is_bytes=is_bytes)


waiters = _budget("waiters", "waiting requests", "BOILERHOUSE_MAX_WAITERS", TooManyWaiting, *Kind)
streams = _budget("streams", "open streams", "BOILERHOUSE_MAX_STREAMS", TooManyStreams, Kind.TENANT, Kind.KEY)
# Each has a thread that is as busy as the container's output.
follows = _budget("follows", "followed logs", "BOILERHOUSE_MAX_FOLLOWED_LOGS", TooManyStreams, Kind.TENANT, Kind.KEY)
_SLOW = "requests that wait for the engine or a sink"
slow = _budget("slow", _SLOW, "BOILERHOUSE_SLOW_THREADS", TooManySlow, Kind.TENANT, Kind.KEY)
# Long request bodies, until their view has read them.
bodies = _budget(
    "bodies",
    "bytes of request bodies",
    "BOILERHOUSE_BODIES_MAX_BYTES",
    TooManyBodies,
    Kind.TENANT,
    Kind.KEY,
    is_bytes=True,
)
# Files on their way from or to containers: each has a window of memory and a process in the container.
transfers = _budget(
    "transfers", "files in transfer", "BOILERHOUSE_MAX_TRANSFERS", TooManyTransfers, Kind.TENANT, Kind.KEY
)
# Files of saved state, from the question to the sink until their readers have them.
saved_files = _budget(
    "saved_files",
    "bytes of saved files",
    "BOILERHOUSE_SAVED_FILES_MAX_BYTES",
    TooManySavedFiles,
    Kind.TENANT,
    Kind.KEY,
    is_bytes=True,
)

ALL = (waiters, streams, follows, slow, bodies, transfers, saved_files)


@dataclass(frozen=True, slots=True)
class Use:
    words: str
    used: int
    share: int
    is_bytes: bool = False


def of_tenant(tenant_id: str, container_id: object) -> list[Use]:
    """What the tenant and requests for its container use in this process, with the limits of one tenant."""
    both = tenant(tenant_id), container(container_id)
    return [
        Use(budget.words, sum(budget.used(owner) for owner in both), budget.share(Kind.TENANT), budget.is_bytes)
        for budget in ALL
    ]
