"""Durations and sizes in the admin as people read them, instead of the rows' milliseconds and MB."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from django.contrib import admin

from boilerhouse.core.quantities import KINDS, Kind


def in_words(names: Iterable[Any]) -> list[Any]:
    """The fields, with a function in place of each that is a duration or a size by its name."""
    return [_column(name) if isinstance(name, str) and _kind(name) else name for name in names]


def _kind(name: str) -> Kind | None:
    return KINDS.get(name.rpartition("_")[2]) if "_" in name else None


@cache
def _column(name: str) -> Callable[[Any], str | None]:
    """The same function each time, because the admin looks fields up by identity."""
    kind = _kind(name)
    assert kind is not None

    @admin.display(description=name.rpartition("_")[0].replace("_", " "), ordering=name, empty_value="-")
    def text_of(row: Any) -> str | None:
        value = getattr(row, name)
        return kind.show(value) if type(value) is int and value >= 0 else value

    text_of.__name__ = name
    return text_of
