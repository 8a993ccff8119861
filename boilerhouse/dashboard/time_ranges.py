"""The range of time that a list shows, and its days, in the zone of the reader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from itertools import groupby
from typing import Any, TypeVar

from django.db.models import Q
from django.utils import timezone

from boilerhouse.dashboard.addresses import Address
from boilerhouse.dashboard.listing import Chip

PRESETS = {"hour": "Last hour", "today": "Today", "yesterday": "Yesterday", "week": "7 days"}
TODAY = "Today"
YEARS = range(1971, 9999)
"""Years whose times every zone and database can express."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TimeRange:
    """From ``start``, before ``end``; None is open."""

    zone: tzinfo
    start: datetime | None = None
    end: datetime | None = None
    preset: str = ""
    parameter: str = "range"
    """The parameter that names the preset."""

    @property
    def is_open(self) -> bool:
        return self.start is None and self.end is None

    @property
    def is_impossible(self) -> bool:
        return self.start is not None and self.end is not None and self.start >= self.end

    def filter(self, field: str) -> Q:
        condition = Q()
        if self.start is not None:
            condition &= Q(**{f"{field}__gte": self.start})
        if self.end is not None:
            condition &= Q(**{f"{field}__lt": self.end})
        return condition

    @property
    def given(self) -> dict[str, str]:
        """What the fields From and To show; empty for a preset, which moves with the time."""
        if self.preset:
            return {"from": "", "to": ""}
        return {"from": self._shown(self.start, "T"), "to": self._shown(self.end, "T")}

    @property
    def words(self) -> str:
        """Such as ``Yesterday``, ``2026-11-27 14:00 to 2026-11-28 09:30`` or ``since 2026-11-27 14:00``."""
        if self.preset:
            return PRESETS[self.preset]
        start, end = self._shown(self.start, " "), self._shown(self.end, " ")
        return f"{start} to {end}" if start and end else f"since {start}" if start else f"before {end}"

    def _shown(self, value: datetime | None, separator: str) -> str:
        return f"{value.astimezone(self.zone):%Y-%m-%d{separator}%H:%M}" if value else ""


def range_of(address: Address, zone: tzinfo, parameter: str = "range") -> TimeRange:
    """What the parameters ``from`` and ``to`` say, in the reader's zone, or else the preset that ``parameter`` names.

    Values that are no times are ignored.
    """
    start, end = _moment(address.get("from"), zone), _moment(address.get("to"), zone)
    if start or end:
        return TimeRange(zone, start, end, "", parameter)
    now = timezone.now().astimezone(zone)
    today = datetime.combine(now.date(), time(), zone)
    yesterday = datetime.combine(now.date() - timedelta(days=1), time(), zone)
    match preset := address.get(parameter):
        case "hour":
            return TimeRange(zone, now - timedelta(hours=1), None, preset, parameter)
        case "today":
            return TimeRange(zone, today, None, preset, parameter)
        case "yesterday":
            return TimeRange(zone, yesterday, today, preset, parameter)
        case "week":
            return TimeRange(zone, now - timedelta(days=7), None, preset, parameter)
    return TimeRange(zone, parameter=parameter)


def presets(address: Address, span: TimeRange) -> list[tuple[str, str, bool]]:
    """Each preset's label, address, and whether it is the current one; the first is any time."""

    def link(preset: str | None) -> str:
        return address.url(**{"from": None, "to": None, span.parameter: preset})

    rows = [("Any time", link(None), span.is_open)]
    return rows + [(text, link(name), name == span.preset) for name, text in PRESETS.items()]


def chips(address: Address, span: TimeRange) -> list[Chip]:
    """The text that is searched for and the range, as active filters."""
    without: dict[str, str | None] = {"from": None, "to": None, span.parameter: None}
    chips = [Chip("contains", address.q, address.url(q=None))] if address.q else []
    return chips if span.is_open else [*chips, Chip("time", span.words, address.url(**without))]


def day_of(day: date) -> tuple[str, str]:
    """The day's range, as the fields From and To take it."""
    return f"{day}T00:00", f"{day + timedelta(days=1)}T00:00"


def _moment(text: str, zone: tzinfo) -> datetime | None:
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        return None
    if value.year not in YEARS:
        return None
    return value if value.tzinfo else value.replace(tzinfo=zone)


@dataclass(frozen=True, slots=True)
class Day:
    """The rows of a day, under a heading that says which."""

    date: date
    heading: str
    rows: list[Any]

    @property
    def is_today(self) -> bool:
        return self.heading.startswith(TODAY)


def days(rows: Iterable[T], when: str, zone: tzinfo) -> Iterator[Day]:
    """The rows, which are in order of the time in their attribute ``when``, by day of the reader's zone."""
    today = timezone.now().astimezone(zone).date()
    for day, some in groupby(rows, lambda row: getattr(row, when).astimezone(zone).date()):
        yield Day(day, heading(day, today), list(some))


def heading(day: date, today: date) -> str:
    """``Today``, ``Yesterday``, ``Thursday 26 November`` or, of another year, ``Thursday 26 November 2026``."""
    text = f"{day:%A} {day.day} {day:%B}" + ("" if day.year == today.year else f" {day.year}")
    near = {today: TODAY, today - timedelta(days=1): "Yesterday"}.get(day)
    return f"{near}, {text}" if near else text
