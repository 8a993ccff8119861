"""A config schema in words: one row per field that a claim's config may have."""

from __future__ import annotations

import json
from typing import Any

from boilerhouse.dashboard.described import Row

MAX_FIELDS, MAX_VALUES = 30, 8


def rows(schema: dict[str, Any]) -> list[Row]:
    """The fields at the top of the schema; what they contain is in the JSON."""
    fields = schema.get("properties")
    if not isinstance(fields, dict) or not fields:
        return [Row("Config", "checked against a schema without named fields; see JSON")]
    names = schema.get("required")
    required = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    result = [Row(name, _field(field, name in required)) for name, field in list(fields.items())[:MAX_FIELDS]]
    if len(fields) > MAX_FIELDS:
        result.append(Row("More fields", f"{len(fields) - MAX_FIELDS}; see JSON"))
    if schema.get("additionalProperties") is False:
        result.append(Row("Other fields", "refused"))
    return result


def _field(field: Any, is_required: bool) -> str:
    if not isinstance(field, dict):
        return "required" if is_required else "any value"
    kind = field.get("type")
    words = [" or ".join(map(str, kind)) if isinstance(kind, list) else str(kind or "any value")]
    values = field.get("enum")
    if isinstance(values, list):
        words.append(f"one of {', '.join(map(_value, values[:MAX_VALUES]))}{', …' if len(values) > MAX_VALUES else ''}")
    for name, text in (("minimum", "at least {}"), ("maximum", "at most {}"), ("minLength", "at least {} characters"),
                       ("maxLength", "at most {} characters"), ("default", "default {}")):  # fmt: skip
        if name in field:
            words.append(text.format(_value(field[name])))
    return ", ".join([*words, *(["required"] if is_required else [])])


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:60]}…"
