"""Lists: ``{items, nextCursor}``, newest first, with an opaque cursor of (ordering key, id)."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from django.db.models import Q, QuerySet
from rest_framework.response import Response

from boilerhouse.core import bounds
from boilerhouse.core.errors import FieldError, Invalid

DEFAULT_LIMIT, MAX_LIMIT = 50, 200


def _invalid(name: str, detail: str) -> Invalid:
    return Invalid(FieldError("", f"Query parameter {name}: {detail}", "invalid"))


def check_parameters(request: Any, names: Iterable[str]) -> None:
    """Refuse query parameters that the endpoint does not know."""
    unknown = sorted(set(request.query_params) - set(names))
    if unknown:
        raise _invalid(unknown[0], "unknown")


def integer(request: Any, name: str, default: int, low: int, high: int) -> int:
    """A query parameter as an integer within bounds. Raises Invalid."""
    raw = request.query_params.get(name)
    if raw is None:
        return default
    number = bounds.natural(raw, high)
    if number is None or number < low:
        raise _invalid(name, f"must be a whole number from {low} to {high}")
    return number


def boolean(request: Any, name: str) -> bool:
    """A query parameter that is ``true`` or ``false`` (default). Raises Invalid."""
    value = request.query_params.get(name, "false")
    if value not in ("true", "false"):
        raise _invalid(name, "must be true or false")
    return bool(value == "true")


def values_of(parameters: Any, name: str) -> list[str]:
    """The values of a repeatable query parameter. Raises Invalid."""
    values: list[str] = parameters.getlist(name)
    if any("\0" in value for value in values):
        raise _invalid(name, "must not contain a NUL character")
    return values


def _position(field: Any, value: Any) -> Any:
    """The cursor's value, converted for the database. Raises any exception if it cannot be converted."""
    if isinstance(value, bool) or value is None:
        raise TypeError
    position = field.to_python(value)
    match position:
        case datetime():
            if position.tzinfo is None or not 1970 <= position.astimezone(UTC).year < 9999:
                raise ValueError
        case int():
            if not 0 <= position <= bounds.MAX_ID:
                raise ValueError
        case str():
            if "\0" in position:
                raise ValueError
            position.encode()
    return position


def paginate(
    request: Any, rows: QuerySet[Any], render: Callable[[Any], Any], filters: dict[str, str], key: str = "created_at"
) -> Response:
    """Return one page of ``rows``, newest first. ``filters`` maps query parameters to lookups."""
    limit = integer(request, "limit", DEFAULT_LIMIT, 1, MAX_LIMIT)
    for parameter, lookup in filters.items():
        if values := values_of(request.query_params, parameter):
            rows = rows.filter(**{f"{lookup}__in": values})
    if cursor := request.query_params.get("cursor"):
        try:
            value, pk = json.loads(base64.urlsafe_b64decode(cursor.encode()))
            value, pk = _position(rows.model._meta.get_field(key), value), _position(rows.model._meta.pk, pk)
        except Exception as error:
            raise _invalid("cursor", "must be a nextCursor of this list") from error
        rows = rows.filter(Q(**{f"{key}__lt": value}) | Q(**{key: value, "pk__lt": pk}))
    page = list(rows.order_by(f"-{key}", "-pk")[: limit + 1])
    next_cursor = None
    if len(page) > limit:
        page = page[:limit]
        last = getattr(page[-1], key)
        raw = json.dumps([last.isoformat() if hasattr(last, "isoformat") else last, str(page[-1].pk)])
        next_cursor = base64.urlsafe_b64encode(raw.encode()).decode()
    return Response({"items": [render(row) for row in page], "nextCursor": next_cursor})
