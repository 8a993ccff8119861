"""Lists that only grow: events and changes, newest first.

A page is found by the id of a row, so it stays the same while new rows arrive. An open page is refreshed with ``seen``,
the newest row when it was loaded: its list is left as it is, and the newer rows are counted (ADR 73).

Filters that no index answers, such as the search for text, are read in windows of the ids, until the page is full or
the time is up; the page then offers to go on from there.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest

from boilerhouse.dashboard import exports, time_ranges
from boilerhouse.dashboard.addresses import Address
from boilerhouse.dashboard.listing import Chip
from boilerhouse.dashboard.page_sections import is_refresh
from boilerhouse.dashboard.time_ranges import Day, TimeRange

PER_PAGE = 50
FIRST_WINDOW, WIDEST_WINDOW = 2_000, 64_000
BUDGET_S, EXPORT_BUDGET_S = 0.4, 10.0
COUNTED, LOOKED_AT = 99, 5_000
"""New rows are counted up to here, among so many newest."""
FOLDED = 50_000
"""Rows among which a page looks for those that it shows folded."""


@dataclass(slots=True)
class Part:
    """Rows of a search, and the id at which it ran out of time; None if it did not."""

    rows: list[Any] = field(default_factory=list)
    stopped_at: Any = None


def scan(rows: QuerySet[Any], among: QuerySet[Any], size: int, *, before: Any = None, budget_s: float) -> Part:
    """The newest ``size`` of ``rows`` with ids less than ``before``, read in growing windows of the ids of ``among``.

    The first window is always read.
    """
    part, width, ends_at = Part(), FIRST_WINDOW, time.monotonic() + budget_s
    while len(part.rows) < size:
        low = _edge(_below(among, before), width)
        window = _below(rows, before)
        window = window if low is None else window.filter(pk__gte=low)
        part.rows += window.order_by("-pk")[: size - len(part.rows)]
        if low is None:
            break
        before, width = low, min(2 * width, WIDEST_WINDOW)
        if time.monotonic() > ends_at:
            part.stopped_at = None if len(part.rows) == size else low
            break
    return part


def _below(rows: QuerySet[Any], before: Any) -> QuerySet[Any]:
    return rows if before is None else rows.filter(pk__lt=before)


def _edge(rows: QuerySet[Any], width: int) -> Any:
    """The id of the row at this distance from the newest, read from an index; None if there are fewer."""
    return next(iter(rows.order_by("-pk").values_list("pk", flat=True)[width - 1 : width]), None)


class Journal:
    """One page of ``rows`` for the request; invalid places are ignored."""

    def __init__(
        self,
        request: HttpRequest,
        address: Address,
        span: TimeRange,
        rows: QuerySet[Any],
        *,
        among: QuerySet[Any],
        when: str,
        chips: Sequence[Chip] = (),
        is_indexed: bool = True,
        per_page: int = PER_PAGE,
    ) -> None:
        """``among``: the rows in whose windows a filter without an index is read. ``when``: the field of the time."""
        self.address, self.span, self.chips = address, span, list(chips)
        self._rows, self._among, self._when, self._is_indexed = rows, among, when, is_indexed
        self.is_kept, self.newer = False, 0
        """Whether the list is left as it is, and how many rows are newer than it; at most one more than ``COUNTED``."""
        self.rows: list[Any] = []
        self.days: list[Day] = []
        self.has_older = False
        self.stopped_at: Any = None
        self._above: Any = None
        """The id that this page is below; None for the newest page."""
        self.seen = self._id("seen") if is_refresh(request) else None
        if self.seen is not None:
            self.is_kept, self.newer = True, self._count_newer()
            return
        newest = among.model._default_manager.order_by("-pk").values_list("pk", flat=True).first()
        self.seen = newest
        self._read(per_page)

    def _id(self, name: str) -> Any:
        """The id of a row in this parameter; None if it is not one."""
        key = self._rows.model._meta.pk
        try:
            value = key.to_python(self.address.get(name) or None)
        except ValidationError:
            return None
        return value if not isinstance(value, int) or 0 <= value < 2**63 else None

    def _count_newer(self) -> int:
        """At most one more than ``COUNTED``."""
        low = _edge(self._among, LOOKED_AT)
        rows = self._rows.filter(pk__gt=self.seen if low is None else max(self.seen, low))
        return rows.order_by()[: COUNTED + 1].count()

    def _read(self, size: int) -> None:
        before, after = self._id("before"), self._id("after")
        self._above = before
        if before is None and after is not None and self._is_indexed:
            rising = list(self._rows.filter(pk__gt=after).order_by("pk")[: size + 1])
            if len(rising) > size:
                self._above = rising[size].pk
                self._set(rising[:size][::-1], has_older=True)
                return
        part = self._newest(size + 1, before, BUDGET_S)
        self.stopped_at = part.stopped_at
        self._set(part.rows[:size], has_older=len(part.rows) > size)

    def _newest(self, size: int, before: Any, budget_s: float) -> Part:
        if self._is_indexed:
            return Part(list(_below(self._rows, before).order_by("-pk")[:size]))
        return scan(self._rows, self._among, size, before=before, budget_s=budget_s)

    def _set(self, rows: list[Any], *, has_older: bool) -> None:
        self.rows, self.has_older = rows, has_older
        self.days = list(time_ranges.days(rows, self._when, self.span.zone))

    def __bool__(self) -> bool:
        return bool(self.rows)

    def same_page(self, others: QuerySet[Any]) -> QuerySet[Any]:
        """Other rows of the model that belong to this page by their ids, among the ``FOLDED`` newest of them."""
        everything = _below(self._among.model._default_manager.all(), self._above)
        ends = [edge for edge in (_edge(everything, FOLDED), self._last) if edge is not None]
        others = _below(others, self._above)
        return others.filter(pk__gt=max(ends)) if ends else others

    @property
    def _last(self) -> Any:
        """The id of the page's last row; None if the list ends there."""
        return self.rows[-1].pk if self.rows and self.has_older else None

    @property
    def top(self) -> str:
        """The list at its newest row."""
        return self.address.place()

    @property
    def previous(self) -> str:
        if self._above is None:
            return ""
        return self.address.place(after=str(self.rows[0].pk)) if self.rows and self._is_indexed else self.top

    @property
    def next(self) -> str:
        """The older page, or where a search that ran out of time goes on."""
        if self.stopped_at is not None:
            return self.address.place(before=str(self.stopped_at))
        return self.address.place(before=str(self.rows[-1].pk)) if self.has_older else ""

    @property
    def searched_to(self) -> Any:
        """How far back a search came before its time was up; None if it read everything or its page is full."""
        if self.stopped_at is None:
            return None
        times = self._among.filter(pk__gte=self.stopped_at).order_by("pk").values_list(self._when, flat=True)
        return times.first()

    @property
    def refresh(self) -> str:
        """What an open page asks for: the same, with the list left as it is."""
        place = {name: self.address.get(name) for name in ("before", "after")}
        return self.address.path + self.address.place(**place, seen=str(self.seen or 0))

    @property
    def news(self) -> str:
        """The count of newer rows: ``12`` or ``99+``."""
        return f"{COUNTED}+" if self.newer > COUNTED else str(self.newer)

    @property
    def csv(self) -> str:
        return self.address.place(format="csv")

    @property
    def bare(self) -> str:
        """The list without filters."""
        return self.address.path

    def all(self) -> Iterable[Any]:
        """All rows of the filters for a file, as many as it may have."""
        if self._is_indexed:
            return self._rows.order_by("-pk")[: exports.MAX_ROWS]
        return islice(self._newest(exports.MAX_ROWS, None, EXPORT_BUDGET_S).rows, exports.MAX_ROWS)
