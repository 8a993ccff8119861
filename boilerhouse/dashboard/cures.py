"""Errors of the API's validators in the words of a form: what to enter, without JSON names.

The API's errors are for programs: they name a pointer and repeat the rule in its own units. A form says under the field
what would be accepted, in the units that the field shows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rest_framework import serializers

from boilerhouse.core.errors import FieldError
from boilerhouse.core.quantities import KINDS

MISSING = frozenset({"required", "null", "blank", "empty"})
NUMBERS = frozenset({"invalid", "min_value", "max_value", "max_string_length", "overflow"})
_API_NAME = re.compile(r"\b[a-z]+(?:[A-Z][a-z0-9]*)+\b")


def cure(
    error: FieldError, field: serializers.Field[Any, Any, Any, Any] | None, *, kind: str = "",
    names: Mapping[str, str] | None = None, most: int | None = None, has_choices: bool = False,
) -> str:  # fmt: skip
    """What to enter at the field that shows the error.

    ``kind`` is the field's kind as in ``documents.Part``; ``names`` are labels by API name; ``most`` is a smaller
    maximum than the validator's, which follows from another field.
    """
    if error.code in MISSING:
        return "Choose one." if has_choices else "Enter a value."
    is_bounded = error.code in NUMBERS or (error.code == "out_of_range" and most is not None)
    if isinstance(field, serializers.IntegerField | serializers.FloatField) and is_bounded:
        return _number(error.code, field, kind, most)
    if error.code == "invalid_choice":
        return "Choose one of the offered values."
    if error.code == "max_length" and isinstance(field, serializers.CharField):
        return f"Enter at most {field.max_length:,} characters."
    return in_words(error.detail, names or {})


def _number(code: str, field: Any, kind: str, most: int | None) -> str:
    low, high = field.min_value, field.max_value if most is None else min(most, field.max_value)
    what = "a whole number" if isinstance(field, serializers.IntegerField) and kind not in KINDS else "a number"
    if kind in KINDS and low is not None and high is not None:
        show = KINDS[kind].show
        return f"Enter {show(low) if low else '0'} to {show(high)}."
    limits = f"{low:,} to {high:,}" if low is not None and high is not None else ""
    if code in ("invalid", "overflow") or not limits:
        return f"Enter {what}, {limits}." if limits else f"Enter {what}."
    return f"Enter {limits}."


def in_words(detail: str, names: Mapping[str, str]) -> str:
    """The text with the labels of the form in place of the API's names."""
    return _API_NAME.sub(lambda match: f"“{names[match[0]]}”" if match[0] in names else match[0], detail)


def field_at(serializer: serializers.BaseSerializer[Any], pointer: str) -> serializers.Field[Any, Any, Any, Any] | None:
    """The serializer's field of that pointer; None if it has none."""
    field: Any = serializer
    for name in pointer.split("/")[1:]:
        inner = getattr(field, "fields", None) or {}
        if name in inner:
            field = inner[name]
        elif name.isdecimal() and getattr(field, "child", None) is not None:
            field = field.child
        else:
            return None
    return None if field is serializer else field


def without(value: Any, pointers: Sequence[str]) -> Any:
    """A copy of the document without what is at these pointers. List items stay, so that other pointers stay valid."""
    if isinstance(value, dict):
        return {
            name: without(item, [rest for rest in map(_below(name), pointers) if rest is not None])
            for name, item in value.items()
            if f"/{_escaped(name)}" not in pointers
        }
    if isinstance(value, list):
        return [
            without(item, [rest for rest in map(_below(str(number)), pointers) if rest is not None])
            for number, item in enumerate(value)
        ]
    return value


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _below(name: str) -> Any:
    head = f"/{_escaped(name)}/"
    return lambda pointer: pointer.removeprefix(head[:-1]) if pointer.startswith(head) else None


def further(errors: Sequence[FieldError], more: Sequence[FieldError]) -> list[FieldError]:
    """The errors of ``more`` at other places than those of ``errors``."""
    pointers = [error.pointer for error in errors]
    return [
        error
        for error in more
        if not any(f"{error.pointer}/".startswith(f"{pointer}/") or f"{pointer}/".startswith(f"{error.pointer}/")
                    for pointer in pointers)
    ]  # fmt: skip
