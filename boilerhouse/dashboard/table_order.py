"""The order of a table whose rows are computed, not queried; it is in the URL as that of a ``Listing``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django.http import HttpRequest


class TableOrder:
    """The wanted order; without a valid one the rows keep theirs."""

    def __init__(self, request: HttpRequest, keys: Mapping[str, Callable[[Any], Any]]) -> None:
        self._query, self._keys = request.GET, keys
        sort = request.GET.get("sort", "")
        self.sort = sort if sort.removeprefix("-") in keys else ""

    def of(self, rows: Sequence[Any]) -> list[Any]:
        """The rows in this order; rows without a value come last."""
        if not self.sort:
            return list(rows)
        key = self._keys[self.sort.removeprefix("-")]
        filled = [row for row in rows if key(row) is not None]
        filled.sort(key=key, reverse=self.sort.startswith("-"))
        return filled + [row for row in rows if key(row) is None]

    def sort_url(self, name: str) -> str:
        """Another order begins at its first page."""
        query = self._query.copy()
        query.pop("page", None)
        query["sort"] = f"-{name}" if self.sort == name else name
        return f"?{query.urlencode()}"

    def direction(self, name: str) -> str:
        """For ``aria-sort``; empty if the table is not sorted by it."""
        return {name: "ascending", f"-{name}": "descending"}.get(self.sort, "")
