"""The filters of Activity: part, types, routine, object, and text."""

from __future__ import annotations

import json
from datetime import timedelta
from functools import cached_property

from django.db import connection
from django.db.models import Q, QuerySet, TextField
from django.db.models.functions import Cast
from django.http import HttpRequest

from boilerhouse.core.events import PROGRESS, ROUTINE, TYPES
from boilerhouse.core.models import Event
from boilerhouse.dashboard import event_words, time_ranges
from boilerhouse.dashboard.addresses import Address
from boilerhouse.dashboard.listing import Chip
from boilerhouse.dashboard.time_ranges import TimeRange
from boilerhouse.dashboard.zones import zone_of

OBJECTS = {
    "tenantId": ("tenant", "tenant_id"), "poolId": ("pool", "pool_id"), "containerId": ("container", "container_id"),
    "actor": ("actor", "actor"), "requestId": ("request", "request_id"),
}  # fmt: skip
UNINDEXED = ("actor", "requestId")
MAX_TERMS = 8
UNCHANGED = "unchanged"
SLACK = timedelta(minutes=10)


class EventFilters:
    """What the request asks for. Values that are unknown are ignored."""

    def __init__(self, request: HttpRequest) -> None:
        self.address = Address(request)
        self.span = time_ranges.range_of(self.address, zone_of(request))
        part = self.address.get("part")
        self.part = part if part in (*event_words.PARTS, "people") else ""
        values = self.address.all("type")
        self.types = [name for name in values if name in TYPES]
        self.without = [name[1:] for name in values if name.startswith("-") and name[1:] in TYPES]
        routine = self.address.get("routine")
        self.routine = routine if routine in ("show", UNCHANGED) else ""
        self.q = self.address.get("q")
        self.objects = {name: value for name in OBJECTS if (value := self.address.get(name))}

    @property
    def is_indexed(self) -> bool:
        """Whether indexes find the newest rows without reading others."""
        return not self.q and self.part != "people" and not any(name in self.objects for name in UNINDEXED)

    def _routine(self) -> Q:
        if self.routine == UNCHANGED:
            return Q(type="sync.completed", is_routine=True)
        if named := [name for name in self.types if name in ROUTINE]:
            return Q(is_routine=False) | Q(type__in=named)
        return Q(is_routine=False) if self.routine != "show" else ~Q(type__in=PROGRESS)

    def among(self) -> QuerySet[Event]:
        """The events of the range, with or without routine: what a search reads through."""
        rows = Event.objects.filter(self._routine()) if not self.types and not self.routine else Event.objects.all()
        return within(rows, self.span)

    def rows(self) -> QuerySet[Event]:
        rows = within(Event.objects.filter(self._routine()), self.span)
        if self.part == "people":
            rows = rows.filter(actor__startswith="user ")
        elif self.part:
            rows = rows.filter(event_words.part(self.part))
        if self.types:
            rows = rows.filter(type__in=self.types)
        if self.without:
            rows = rows.exclude(type__in=self.without)
        for name, value in self.objects.items():
            rows = rows.filter(**{OBJECTS[name][1]: value})
        return searched(rows, self.q).defer("private")

    def unchanged(self) -> QuerySet[Event] | None:
        """The saves that this list hides because they had nothing to send; None if it would not show them anyway."""
        is_asked_for = self.part in ("", "sync") and not (self.types or self.routine or self.q)
        if not is_asked_for or "sync.completed" in self.without:
            return None
        rows = within(Event.objects.filter(type="sync.completed", is_routine=True), self.span)
        return rows.filter(**{OBJECTS[name][1]: value for name, value in self.objects.items()})

    def chips(self) -> list[Chip]:
        url, types = self.address.url, self.address.all("type")
        chips = [Chip("type", event_words.label(name), url(type=_less(types, name))) for name in self.types]
        chips += [Chip("without", event_words.label(name), url(type=_less(types, f"-{name}"))) for name in self.without]
        chips += [Chip(OBJECTS[name][0], value, url(**{name: None})) for name, value in self.objects.items()]
        if self.routine == UNCHANGED:
            chips.append(Chip("only", "saves without changes", url(routine=None)))
        return chips + time_ranges.chips(self.address, self.span)

    @cached_property
    def without_type(self) -> dict[str, str]:
        """For each type, the same list without it."""
        types = self.address.all("type")
        return {name: self.address.url(type=[*_less(types, name), f"-{name}"]) for name in TYPES}

    def parts(self) -> list[tuple[str, str, bool]]:
        """Each part's label, address, and whether it is the current one."""
        labels = {"": "All", **{name: words for name, (words, _) in event_words.PARTS.items()}, "people": "People"}
        return [(text, self.address.url(part=name or None), name == self.part) for name, text in labels.items()]


def _less(values: list[str], value: str) -> list[str]:
    return [one for one in values if one != value]


def within(rows: QuerySet[Event], span: TimeRange) -> QuerySet[Event]:
    """Events of the range. Bounds on ids come first, so that reading by id needs no search for the range.

    Ids are in order of commits, and times are those of the statements before: they differ by less than ``SLACK``.
    """
    if span.is_open:
        return rows
    ids = Event.objects.order_by("created_at").values_list("pk", flat=True)
    if span.start is not None and (older := ids.filter(created_at__lt=span.start - SLACK).last()) is not None:
        rows = rows.filter(pk__gt=older)
    if span.end is not None and (newer := ids.filter(created_at__gte=span.end + SLACK).first()) is not None:
        rows = rows.filter(pk__lt=newer)
    return rows.filter(span.filter("created_at"))


def searched(rows: QuerySet[Event], text: str) -> QuerySet[Event]:
    """Events with every word of the text in their type's words, ids, actor, request id, or details."""
    if not text:
        return rows
    rows = rows.alias(details=Cast("payload", TextField()))
    for term in text.split()[:MAX_TERMS]:
        rows = rows.filter(_contains(term))
    return rows


def _contains(term: str) -> Q:
    end_of_id = term.removeprefix("c-")
    condition = Q(details__icontains=as_stored(term)) | Q(type__in=event_words.types_called(term))
    for field in ("tenant_id", "pool_id", "actor", "request_id"):
        condition |= Q(**{f"{field}__icontains": term})
    return condition | Q(container_id__icontains=end_of_id)


def as_stored(term: str) -> str:
    """The text as the database stores it in JSON: SQLite keeps our spelling, PostgreSQL writes its own."""
    return json.dumps(term, ensure_ascii=connection.vendor == "sqlite")[1:-1]
