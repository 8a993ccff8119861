"""Lists as CSV: all rows that match the filters, on all pages."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

MAX_ROWS = 10_000
Columns = Sequence[tuple[str, Callable[[Any], Any]]]


def is_requested(request: HttpRequest) -> bool:
    return request.GET.get("format") == "csv"


def as_csv(name: str, rows: Iterable[Any], columns: Columns, *, most: int = MAX_ROWS) -> HttpResponse:
    """A file of at most ``most`` rows; text that a spreadsheet would read as a formula is quoted."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([title for title, _ in columns])
    for row in rows[:most] if isinstance(rows, QuerySet) else islice(rows, most):
        writer.writerow([_cell(read(row)) for _, read in columns])
    answer = HttpResponse(text.getvalue(), content_type="text/csv; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="{name}.csv"'
    return answer


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    text = value.isoformat() if hasattr(value, "isoformat") else str(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
