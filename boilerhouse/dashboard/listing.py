"""Lists on pages: filter, search, sort order and page are in the URL, so that links and reloads show the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import FieldDoesNotExist
from django.core.paginator import Page
from django.db.models import F, Model, Q, QuerySet
from django.http import HttpRequest, QueryDict

from boilerhouse.dashboard.bounded_counts import BoundedPaginator

PER_PAGE = 50
UNTIL = "until"


@dataclass(frozen=True, slots=True)
class Choice:
    """A filter that offers values."""

    name: str
    label: str
    lookup: str | Callable[[str], Q]
    """The field that has the value, or the condition for it."""
    options: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Chip:
    """An active filter, and the URL without it."""

    label: str
    value: str
    without: str


def _may_be_empty(model: type[Model], name: str) -> bool:
    """Whether the order must place empty values explicitly; unnecessarily, no index could be used."""
    try:
        field = model._meta.get_field(name)
    except FieldDoesNotExist:  # computed, or of a related row
        return True
    return bool(getattr(field, "null", True))


class Listing:
    """One page of ``rows`` for the request's query; invalid parameters are ignored."""

    def __init__(
        self,
        request: HttpRequest,
        rows: QuerySet[Any],
        *,
        choices: Sequence[Choice] = (),
        fixed: Mapping[str, tuple[str, str]] | None = None,
        search: Sequence[str] = (),
        sorts: Mapping[str, str] | None = None,
        default: str = "",
        per_page: int = PER_PAGE,
        filled: Sequence[str] = (),
        until: str = "",
    ) -> None:
        """``fixed`` maps additional parameters to (label, lookup), set only by links; ``sorts`` maps names to fields.

        ``filled`` are fields without empty values in ``rows``: then an index can provide their order. ``until`` is what
        links to other pages give as the parameter of that name, so that pages do not shift while rows arrive.
        """
        self._until = until
        self._query, self.sorts, self.choices = request.GET, dict(sorts or {}), list(choices)
        self.path, self.chips = request.path, list[Chip]()
        self._filters = {choice.name for choice in choices} | set(fixed or {}) | {"q", "page"}
        for choice in choices:
            value = self._query.get(choice.name, "")
            if value in dict(choice.options):
                lookup = choice.lookup
                rows = rows.filter(Q(**{lookup: value}) if isinstance(lookup, str) else lookup(value))
                self._chip(choice.name, choice.label, dict(choice.options)[value])
        for name, (label, lookup) in (fixed or {}).items():
            if value := self._query.get(name, "").replace("\0", ""):
                rows = rows.filter(**{lookup: value})
                self._chip(name, label, value)
        self.q = self._query.get("q", "").replace("\0", "").strip()[:200]
        self.is_searchable = bool(search)
        if self.q and search:
            condition = Q()
            for field in search:
                condition |= Q(**{f"{field}__icontains": self.q})
            rows = rows.filter(condition)
            self._chip("q", "contains", self.q)
        sort = self._query.get("sort", "")
        self.sort = sort if sort.lstrip("-") in self.sorts else default
        if self.sort:
            field, is_falling = self.sorts[self.sort.lstrip("-")], self.sort.startswith("-")
            last = True if field not in filled and _may_be_empty(rows.model, field) else None
            by = F(field).desc(nulls_last=last) if is_falling else F(field).asc(nulls_last=last)
            rows = rows.order_by(by, "-pk" if is_falling else "pk")
        self.all: QuerySet[Any] = rows
        """All rows that match the filters, not only this page."""
        number = self._query.get("page", "1")
        self._paginator = BoundedPaginator(rows, per_page)
        self.page: Page[Any] = self._paginator.get_page(number if number.isascii() else 1)
        self.total = self._paginator.count

    def __iter__(self) -> Any:
        return iter(self.page.object_list)

    def __bool__(self) -> bool:
        return self.total > 0

    def _chip(self, name: str, label: str, value: str) -> None:
        self.chips.append(Chip(label, value, self._url({name: None, "page": None})))

    def _url(self, changes: Mapping[str, str | None]) -> str:
        query = QueryDict(mutable=True)
        for name, values in self._query.lists():
            if name not in changes and name not in (UNTIL, "seen"):
                query.setlist(name, values)
        for name, value in changes.items():
            if value is not None:
                query[name] = value
        if changes.get("page") and self._until:
            query[UNTIL] = self._until
        text = query.urlencode()
        return f"?{text}" if text else self.path

    @property
    def bare(self) -> str:
        """The list without filters, in the same order and of the same section."""
        return self._url(dict.fromkeys(self._filters))

    @property
    def hidden(self) -> list[tuple[str, str]]:
        """Hidden parameters of the filter form."""
        names = {choice.name for choice in self.choices} | {"q", "page"}
        return [(name, value) for name, values in self._query.lists() for value in values if name not in names]

    @property
    def chosen(self) -> dict[str, str]:
        return {choice.name: self._query.get(choice.name, "") for choice in self.choices}

    @property
    def options(self) -> dict[str, str]:
        """The chosen values of the filters that are on."""
        return {one.name: self.chosen[one.name] for one in self.choices if self.chosen[one.name] in dict(one.options)}

    def sort_url(self, name: str) -> str:
        return self._url({"sort": f"-{name}" if self.sort == name else name, "page": None})

    def direction(self, name: str) -> str:
        """For ``aria-sort``; empty if the list is not sorted by it."""
        return {name: "ascending", f"-{name}": "descending"}.get(self.sort, "")

    @property
    def csv(self) -> str:
        """The URL of the same list as a file."""
        return self._url({"format": "csv", "page": None})

    @property
    def newer(self) -> str:
        return self._url({"page": str(self.page.previous_page_number())}) if self.page.has_previous() else ""

    @property
    def older(self) -> str:
        return self._url({"page": str(self.page.next_page_number())}) if self.page.has_next() else ""

    @property
    def shown(self) -> str:
        """``23``, ``1 to 50 of 140`` or ``1 to 50 of more than 10,000``."""
        if self.page.paginator.num_pages == 1 and not self._paginator.has_more:
            return str(self.total)
        return f"{self.page.start_index()} to {self.page.end_index()} of {self._paginator.total}"
