"""How far pools have rolled to the newest version of their workload and to their network settings, and what the rest
waits for."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from django.db.models import Count, OuterRef, Subquery

from pools.models import Container, Pool, Template, WorkloadVersion
from pools.states import ContainerState

LIVE = (ContainerState.STARTING, ContainerState.IDLE, ContainerState.CLAIMED)
WARM = (ContainerState.IDLE, ContainerState.CLAIMED)


@dataclass(frozen=True, slots=True)
class Older:
    """Containers of one older version, or of the newest one with older network settings."""

    version: int
    idle: int
    claimed: int
    is_of_network: bool = False

    @property
    def name(self) -> str:
        """What they keep until they are replaced."""
        return "the old network settings" if self.is_of_network else f"version {self.version}"


@dataclass(frozen=True, slots=True)
class Roll:
    """A pool of which not every container has the newest version and the present network settings."""

    version: int
    done: int
    """Warm containers of the newest version with the present network settings."""
    total: int
    older: tuple[Older, ...] = ()
    """Newest first."""
    is_halted: bool = False
    """What is new did not become healthy, and no more of its containers are started."""
    is_tried: bool = False
    """One container of what is new is being started, and the last good one serves."""
    is_paused: bool = False
    error: str = ""
    """Why it is halted."""
    served: int = 0
    """The version that claims get while what is new is not proven."""

    @property
    def is_of_network(self) -> bool:
        """Whether only the network settings change."""
        only_network = all(one.is_of_network for one in self.older)
        return self.served == self.version and only_network and bool(self.older or self.is_halted)

    @property
    def _new(self) -> str:
        return "new network settings" if self.is_of_network else f"version {self.version}"

    @property
    def _good(self) -> str:
        return "the old ones" if self.is_of_network else f"version {self.served}"

    @property
    def sentence(self) -> str:
        new, many = _capital(self._new), self.is_of_network
        if self.is_halted:
            return f"{new} failed, {self._good} {'serve' if many else 'serves'}"
        return f"{new} {'roll' if many else 'rolls'} out, {self.done} of {self.total}"

    @property
    def reasons(self) -> list[str]:
        """What the rest of the roll waits for."""
        if self.is_halted:
            subject = f"Containers with {self._new}" if self.is_of_network else _capital(self._new)
            return [f"{subject} did not become healthy, so the roll stopped: {self.error}"]
        results = []
        if self.is_tried:
            of, serves = ("with", "serve") if self.is_of_network else ("of", "serves")
            results.append(
                f"One container {of} {self._new} is tested first. {_capital(self._good)} {serves} until it is healthy."
            )
        idle = sum(one.idle for one in self.older)
        older = "with the old settings" if self.is_of_network else "of older versions"
        if any(one.is_of_network for one in self.older) and not self.is_of_network:
            older = "of older versions or settings"
        if idle and self.is_paused:
            results.append(f"Refill is paused, so {_count(idle, 'idle container')} {older} {_agree(idle, 'stay')}.")
        elif idle and not self.is_tried:
            verb = "is" if idle == 1 else "are"
            results.append(f"{_count(idle, 'idle container')} {older} {verb} replaced one after another.")
        for one in self.older:
            if one.claimed:
                who = "its tenant is" if one.claimed == 1 else "their tenants are"
                claimed = _count(one.claimed, "claimed container")
                results.append(f"{claimed} {_agree(one.claimed, 'keep')} {one.name} until {who} released.")
        return results


def of_pools(pools: Sequence[Pool]) -> dict[str, Roll]:
    """The rolls of these pools by id; pools without one are left out. Takes two queries, however many pools."""
    newest = WorkloadVersion.objects.filter(workload=OuterRef("workload")).order_by("-number")
    annotated = Pool.objects.filter(pk__in=[pool.pk for pool in pools]).annotate(
        newest_id=Subquery(newest.values("pk")[:1]), newest_number=Subquery(newest.values("number")[:1])
    )
    rows = annotated.values_list("pk", "newest_id", "newest_number", "good_version__number")
    latest = {pk: (newest_id, number, served) for pk, newest_id, number, served in rows}
    wanted = {pool.pk: Template(latest[pool.pk][0], pool.network) for pool in pools if pool.pk in latest}
    counts: dict[str, dict[_Kind, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    live = Container.objects.filter(pool_id__in=latest, state__in=LIVE)
    grouped = live.values_list("pool_id", "version_id", "version__number", "network", "state").annotate(n=Count("pk"))
    for pool_id, version_id, number, network, state, count in grouped:
        is_new = Template(version_id, network) == wanted[pool_id]
        counts[pool_id][number, is_new][state] += count
    rolls = {pool.pk: _roll(pool, *latest[pool.pk], counts[pool.pk]) for pool in pools if pool.pk in latest}
    return {pool_id: roll for pool_id, roll in rolls.items() if roll is not None}


_Kind = tuple[int, bool]
"""The number of a version, and whether it is the newest with the present network settings."""


def _roll(
    pool: Pool, newest_id: int, newest: int, served: int | None, counts: Mapping[_Kind, Counter[str]]
) -> Roll | None:
    wanted = Template(newest_id, pool.network)
    older = tuple(
        Older(number, states[ContainerState.IDLE], states[ContainerState.CLAIMED], is_of_network=number == newest)
        for (number, is_new), states in sorted(counts.items(), reverse=True)
        if not is_new and (states[ContainerState.IDLE] or states[ContainerState.CLAIMED])
    )
    is_halted = pool.halted == wanted
    if not older and not is_halted:
        return None
    new = counts.get((newest, True), Counter())
    current = sum(new[state] for state in WARM)
    return Roll(
        newest,
        current,
        current + sum(one.idle + one.claimed for one in older),
        older,
        is_halted=is_halted,
        is_tried=not is_halted and pool.good not in (None, wanted),
        is_paused=pool.is_paused,
        error=pool.last_error,
        served=served or newest,
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _agree(number: int, verb: str) -> str:
    return f"{verb}s" if number == 1 else verb


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
