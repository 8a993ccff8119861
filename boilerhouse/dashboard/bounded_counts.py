"""Counts for display: exact while they are small, with bounded work."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from django.core.paginator import Paginator
from django.db.models import QuerySet

MOST = 10_000


def up_to(rows: QuerySet[Any], most: int = MOST) -> str:
    """``1234``, or ``10,000+`` if there are more; further rows are not read."""
    count = _counted(rows, most)
    return f"{most:,}+" if count > most else str(count)


def _counted(rows: QuerySet[Any], most: int) -> int:
    """At most one more than ``most``."""
    return rows.order_by()[: most + 1].count()


class BoundedPaginator(Paginator[Any]):
    """Pages of the first ten thousand rows; use filters or the search for others."""

    @cached_property
    def _counted(self) -> int:
        rows = self.object_list
        return _counted(rows, MOST) if isinstance(rows, QuerySet) else len(rows)

    @cached_property
    def count(self) -> int:
        return min(MOST, self._counted)

    @property
    def has_more(self) -> bool:
        return self._counted > MOST

    @property
    def total(self) -> str:
        """``140``, or ``more than 10,000``."""
        return f"more than {MOST:,}" if self.has_more else str(self.count)
