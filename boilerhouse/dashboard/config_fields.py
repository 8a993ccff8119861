"""The fields of a claim's config, generated from the workload's schema.

Only what a form can show well: the properties of an object at the top. A value of another kind is entered as JSON, and
a schema without plain properties has no fields at all: its config is one JSON document.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from boilerhouse.core.errors import FieldError

MAX_FIELDS = 40
MAX_CHOICES = 50
PREFIX = "config."
PLAIN = ("string", "integer", "number", "boolean")


@dataclass
class ConfigField:
    """One property of the config. ``kind`` is one of ``PLAIN``, or ``json``."""

    name: str
    kind: str
    hint: str
    is_required: bool
    options: list[tuple[str, str]] = field(default_factory=list)
    """The choices of an enumeration or a boolean: the value as JSON and its text; the first is to leave it out."""
    value: str = ""
    error: str = ""

    @property
    def input_name(self) -> str:
        return PREFIX + self.name


def of_schema(schema: Any) -> list[ConfigField]:
    """Its fields, required ones first; empty if the config has to be written as JSON."""
    if not isinstance(schema, dict) or not isinstance(schema.get("properties"), dict):
        return []
    if {"$ref", "allOf", "anyOf", "oneOf", "if", "patternProperties"} & set(schema):
        return []
    properties: dict[str, Any] = schema["properties"]
    if not properties or len(properties) > MAX_FIELDS:
        return []
    required = schema.get("required")
    names = required if isinstance(required, list) else []
    fields = [_field(name, rule, is_required=name in names) for name, rule in properties.items()]
    return sorted(fields, key=lambda one: not one.is_required)


def _field(name: str, rule: Any, *, is_required: bool) -> ConfigField:
    rule = rule if isinstance(rule, dict) else {}
    kind = rule.get("type")
    config_field = ConfigField(name, kind if kind in PLAIN else "json", _hint(rule), is_required)
    choices = rule.get("enum")
    if isinstance(choices, list) and 0 < len(choices) <= MAX_CHOICES:
        config_field.options = [(json.dumps(one), one if isinstance(one, str) else json.dumps(one)) for one in choices]
    elif kind == "boolean":
        config_field.options = [("true", "yes"), ("false", "no")]
    if config_field.options:
        config_field.options.insert(0, ("", "not set"))
    if "default" in rule:
        default = rule["default"]
        is_text = config_field.kind == "string" and not config_field.options and isinstance(default, str)
        config_field.value = default if is_text else json.dumps(default)
    return config_field


def _hint(rule: dict[str, Any]) -> str:
    parts = [str(rule[name]).rstrip(".")[:300] for name in ("title", "description") if rule.get(name)]
    bounds = {"minimum": "at least", "maximum": "at most", "maxLength": "characters at most"}
    parts += [f"{rule[name]} {word}" if name == "maxLength" else f"{word} {rule[name]}"
              for name, word in bounds.items() if isinstance(rule.get(name), int | float)]  # fmt: skip
    return "; ".join(parts)


def read(fields: list[ConfigField], posted: Mapping[str, str]) -> tuple[dict[str, Any], list[FieldError]]:
    """The config as typed, and what cannot be read. Each field keeps what was typed; an empty one is left out."""
    config: dict[str, Any] = {}
    wrong = []
    for one in fields:
        one.value = posted.get(one.input_name, "")
        if not one.value.strip():
            continue
        try:
            config[one.name] = one.value if one.kind == "string" and not one.options else json.loads(one.value)
        except (ValueError, RecursionError):
            what = {"integer": "a whole number", "number": "a number"}.get(one.kind, "JSON")
            one.error = f"Enter {what}."
            wrong.append(FieldError(f"/config/{one.name}", one.error, "malformed"))
    return config, wrong


def sample(schema: Any) -> dict[str, Any] | None:
    """A short config for an example of a claim: what the schema requires, with its default or first choice."""
    values: dict[str, Any] = {}
    for one in of_schema(schema):
        if one.is_required:
            rule = schema["properties"][one.name]
            blank = {"string": "…", "integer": 0, "number": 0, "boolean": False, "array": []}.get(rule.get("type"), {})
            choices = rule.get("enum") or [blank]
            values[one.name] = rule.get("default", choices[0])
    return values or None
