"""Short feeds on pages of pools, tenants and containers: the newest events, without routine.

Saves that found everything at the sink already are one line: how many tenants were saved, and when.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, tzinfo
from typing import TypeVar
from urllib.parse import urlencode

from django.db.models import Q, QuerySet
from django.urls import reverse

from boilerhouse.core.models import Event

SHOWN = 20
READ = 1_000
"""Unchanged saves that a fold reads, the newest; a deployment may have made many more."""
LIFECYCLE = ("container.created", "container.ready", "container.destroyed")
T = TypeVar("T")
PARAMETERS = {"pool_id": "poolId", "tenant_id": "tenantId", "container_id": "containerId"}


@dataclass(slots=True)
class Fold:
    """Saves that had nothing to send."""

    first: datetime
    last: datetime
    saves: int
    tenants: set[str]
    url: str
    is_more: bool = False
    """Whether there are older ones that were not read."""


@dataclass(frozen=True, slots=True)
class Feed:
    """The newest events; true if there are any."""

    events: list[Event]
    fold: Fold | None

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)

    def __bool__(self) -> bool:
        return bool(self.events or self.fold)

    @property
    def newest(self) -> str:
        """The id of the newest event, which tells an open page whether there are others."""
        return str(self.events[0].pk) if self.events else ""


def newest(limit: int = SHOWN, **about: str) -> Feed:
    """The newest events about a pool, tenant or container, or of all. A container's include its start and its end."""
    rows = Event.objects.filter(**about)
    news = Q(is_routine=False)
    if "container_id" in about:
        news |= Q(type__in=LIFECYCLE)
    events = list(rows.filter(news).defer("private")[:limit])
    since = rows.filter(pk__gt=events[-1].pk) if len(events) == limit else rows
    query = urlencode({"routine": "unchanged", **{PARAMETERS[name]: value for name, value in about.items()}})
    return Feed(events, fold(since, f"{reverse('activity')}?{query}"))


def fold(rows: QuerySet[Event], url: str) -> Fold | None:
    """The unchanged saves among ``rows`` as one; of more than ``READ`` the newest."""
    return next(iter(_folds(rows, lambda _at: None, url, READ).values()), None)


def by_day(rows: QuerySet[Event], zone: tzinfo, most: int) -> dict[date, Fold]:
    """The same for each day of the zone, without addresses; of more than ``most`` the newest."""
    return _folds(rows, lambda at: at.astimezone(zone).date(), "", most)


def _folds(rows: QuerySet[Event], key: Callable[[datetime], T], url: str, most: int) -> dict[T, Fold]:
    saves = rows.filter(type="sync.completed", is_routine=True).order_by("-pk")
    times: list[tuple[datetime, str]] = list(saves.values_list("created_at", "tenant_id")[: most + 1])
    folds: dict[T, Fold] = {}
    for at, tenant_id in times[:most]:
        one = folds.setdefault(key(at), Fold(at, at, 0, set(), url))
        one.first, one.last = min(one.first, at), max(one.last, at)
        one.saves += 1
        one.tenants.add(tenant_id)
    if len(times) > most:
        folds[key(times[most - 1][0])].is_more = True
    return folds
