"""How far pools have rolled to the newest version of their workload, and what the rest waits for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import Count, OuterRef, Subquery

from pools.models import Container, Pool, WorkloadVersion
from pools.states import ContainerState

LIVE = (ContainerState.STARTING, ContainerState.IDLE, ContainerState.CLAIMED)
WARM = (ContainerState.IDLE, ContainerState.CLAIMED)


@dataclass(frozen=True, slots=True)
class Older:
    """The containers of an older version."""

    version: int
    idle: int
    claimed: int


@dataclass(frozen=True, slots=True)
class Roll:
    """A pool of which not every container has the newest version."""

    version: int
    done: int
    """Warm containers of the newest version."""
    total: int
    older: tuple[Older, ...] = ()
    """Newest first."""
    is_halted: bool = False
    """The newest version did not become healthy, and no more of its containers are started."""
    is_tried: bool = False
    """One container of the newest version is being started, and an older version serves."""
    is_paused: bool = False
    error: str = ""
    """Why it is halted."""
    served: int = 0
    """The version that claims get while the newest one is not proven."""

    @property
    def sentence(self) -> str:
        if self.is_halted:
            return f"Version {self.version} failed, version {self.served} serves"
        return f"Version {self.version} rolls out, {self.done} of {self.total}"

    @property
    def reasons(self) -> list[str]:
        """What the rest of the roll waits for."""
        if self.is_halted:
            return [f"Version {self.version} did not become healthy, so the roll stopped: {self.error}"]
        results = []
        if self.is_tried:
            results.append(
                f"One container of version {self.version} is tested first. Version {self.served} serves until it is"
                " healthy."
            )
        idle = sum(one.idle for one in self.older)
        if idle and self.is_paused:
            results.append(f"Refill is paused, so {_count(idle, 'idle container')} of older versions stay.")
        elif idle and not self.is_tried:
            verb = "is" if idle == 1 else "are"
            results.append(f"{_count(idle, 'idle container')} of older versions {verb} replaced one after another.")
        for one in self.older:
            if one.claimed:
                keep, who = ("keeps", "its tenant is") if one.claimed == 1 else ("keep", "their tenants are")
                claimed = _count(one.claimed, "claimed container")
                results.append(f"{claimed} {keep} version {one.version} until {who} released.")
        return results


def of_pools(pools: Sequence[Pool]) -> dict[str, Roll]:
    """The rolls of these pools by id; pools without one are left out. Takes two queries, however many pools."""
    newest = WorkloadVersion.objects.filter(workload=OuterRef("workload")).order_by("-number")
    annotated = Pool.objects.filter(pk__in=[pool.pk for pool in pools]).annotate(
        newest_id=Subquery(newest.values("pk")[:1]), newest_number=Subquery(newest.values("number")[:1])
    )
    rows = annotated.values_list("pk", "newest_id", "newest_number", "good_version__number")
    latest = {pk: (newest_id, number, served) for pk, newest_id, number, served in rows}
    counts: dict[str, dict[int, dict[str, int]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(int)))
    containers = Container.objects.filter(pool_id__in=latest, state__in=LIVE)
    for pool_id, number, state, count in containers.values_list("pool_id", "version__number", "state").annotate(
        n=Count("pk")
    ):
        counts[pool_id][number][state] = count
    rolls = {pool.pk: _roll(pool, *latest[pool.pk], counts[pool.pk]) for pool in pools if pool.pk in latest}
    return {pool_id: roll for pool_id, roll in rolls.items() if roll is not None}


def _roll(
    pool: Pool, newest_id: int, newest: int, served: int | None, counts: dict[int, dict[str, int]]
) -> Roll | None:
    older = tuple(
        Older(number, states[ContainerState.IDLE], states[ContainerState.CLAIMED])
        for number, states in sorted(counts.items(), reverse=True)
        if number != newest and (states[ContainerState.IDLE] or states[ContainerState.CLAIMED])
    )
    is_halted = pool.halted_version_id == newest_id
    if not older and not is_halted:
        return None
    current = sum(counts[newest][state] for state in WARM)
    return Roll(
        newest,
        current,
        current + sum(one.idle + one.claimed for one in older),
        older,
        is_halted=is_halted,
        is_tried=not is_halted and pool.good_version_id not in (None, newest_id),
        is_paused=pool.is_paused,
        error=pool.last_error,
        served=served or newest,
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
