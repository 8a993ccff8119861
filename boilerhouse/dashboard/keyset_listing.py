"""Lists whose pages begin after a row, not at a number: while rows come and go, none is skipped or shown twice."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import datetime
from typing import Any
from uuid import UUID

from django.core.exceptions import FieldError, ValidationError
from django.db.models import F, Q, QuerySet
from django.http import HttpRequest

from boilerhouse.dashboard.listing import PER_PAGE, Listing

AFTER, BEFORE = "after", "before"


class KeysetListing(Listing):
    """A ``Listing`` whose place in the URL is the value and the id of a row. Without a valid one, it is the start."""

    def __init__(self, request: HttpRequest, rows: QuerySet[Any], *, per_page: int = PER_PAGE, **more: Any) -> None:
        super().__init__(request, rows, per_page=per_page, **more)
        self._field = self.sorts[self.sort.lstrip("-")]
        self._is_falling = self.sort.startswith("-")
        self._name = AFTER if AFTER in request.GET else BEFORE if BEFORE in request.GET else ""
        try:
            self.rows, self._more = self._read(request.GET.get(self._name, ""), per_page)
        except (ValueError, TypeError, ValidationError, FieldError, OverflowError):
            self._name = ""
            self.rows, self._more = self._read("", per_page)

    def _read(self, place: str, per_page: int) -> tuple[list[Any], bool]:
        rows = self.all.annotate(place_value=F(self._field))
        if self._name:
            value, pk = json.loads(place)
            rows = rows.filter(self._beyond(value, UUID(pk), is_before=self._name == BEFORE))
        if self._name == BEFORE:
            rows = rows.reverse()
        read = list(rows[: per_page + 1])
        page_rows = read[:per_page]
        return page_rows[::-1] if self._name == BEFORE else page_rows, len(read) > per_page

    def _beyond(self, value: Any, pk: UUID, *, is_before: bool) -> Q:
        """The rows after the place in this order, in which empty values are last; or those before it."""
        way = "lt" if self._is_falling != is_before else "gt"
        if value is None:
            same = Q(place_value__isnull=True) & Q(**{f"pk__{way}": pk})
            return same | Q(place_value__isnull=False) if is_before else same
        beyond = Q(**{f"place_value__{way}": value}) | Q(place_value=value) & Q(**{f"pk__{way}": pk})
        return beyond if is_before else beyond | Q(place_value__isnull=True)

    def __iter__(self) -> Any:
        return iter(self.rows)

    def _url_of(self, name: str, row: Any) -> str:
        value = row.place_value
        if isinstance(value, datetime):
            value = value.isoformat()
        elif isinstance(value, UUID):
            value = str(value)
        return self._url({AFTER: None, BEFORE: None, name: json.dumps([value, str(row.pk)], separators=(",", ":"))})

    def sort_url(self, name: str) -> str:
        with suppress(KeyError):
            return self._url({"sort": f"-{name}" if self.sort == name else name, AFTER: None, BEFORE: None})
        return self.path

    @property
    def newer(self) -> str:
        has = self._name == AFTER or (self._name == BEFORE and self._more)
        return self._url_of(BEFORE, self.rows[0]) if has and self.rows else ""

    @property
    def older(self) -> str:
        has = self._name == BEFORE or self._more
        return self._url_of(AFTER, self.rows[-1]) if has and self.rows else ""

    @property
    def shown(self) -> str:
        """``23``, or ``50 of 140``."""
        if not (self.newer or self.older):
            return str(self.total)
        return f"{len(self.rows)} of {self._paginator.total}"

    @property
    def query(self) -> str:
        """The filters, without the order and the place, as they are in the URL."""
        return self._url({"sort": None, AFTER: None, BEFORE: None, "tab": None}).partition("?")[2]
