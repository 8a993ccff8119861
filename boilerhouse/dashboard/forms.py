"""Forms over the API's own serializers: one validator for programs and people, and what was typed is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from rest_framework import serializers

from boilerhouse.core.api.problems import field_errors
from boilerhouse.core.errors import BoilerhouseError, FieldError, Invalid, PreconditionFailed


@dataclass
class Field:
    name: str
    label: str
    hint: str
    value: str
    options: list[tuple[str, str]]
    error: str = ""
    is_secret: bool = False
    """Never sent back to the browser."""


class ApiForm:
    """Some flat fields of a serializer."""

    def __init__(
        self,
        serializer: type[serializers.Serializer[Any]],
        names: list[str],
        labels: Mapping[str, tuple[str, str]],
        values: Mapping[str, Any],
        choices: Mapping[str, list[tuple[str, str]]] | None = None,
        *,
        lists: Collection[str] = (),
        secrets: Collection[str] = (),
    ) -> None:
        """``lists`` are typed as words; ``secrets`` are not shown again."""
        self._serializer, self._lists = serializer, lists
        self.fields = [
            Field(
                name, *labels[name], _text(values.get(name)), (choices or {}).get(name, []), is_secret=name in secrets
            )
            for name in names
        ]
        self.errors: list[FieldError] = []

    def read(self, posted: Mapping[str, str], **more: Any) -> dict[str, Any] | None:
        """What was typed, validated; None when something is wrong: the form then says what."""
        given: dict[str, Any] = dict(more)
        for field in self.fields:
            typed = posted.get(field.name, "").strip()
            field.value = "" if field.is_secret else typed
            if typed:
                given[field.name] = typed.replace(",", " ").split() if field.name in self._lists else typed
        body = self._serializer(data=given)
        if body.is_valid():
            return dict(body.validated_data)
        self.errors = field_errors(body.errors)
        for field in self.fields:
            field.error = next((e.detail for e in self.errors if e.pointer.split("/")[1:2] == [field.name]), "")
        return None

    def add(self, error: BoilerhouseError) -> None:
        """What a service had against it."""
        said = error.errors if isinstance(error, Invalid) else [FieldError("/id", error.detail, error.code)]
        self.errors += said
        for field in self.fields:
            field.error = field.error or next((e.detail for e in said if e.pointer == f"/{field.name}"), "")


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def seen(shown: Mapping[str, Any]) -> str:
    """What a form carries to notice, when it comes back, that somebody changed the thing meanwhile."""
    return hashlib.sha256(as_json(shown).encode()).hexdigest()[:32]


def check_seen(posted: str, shown: Mapping[str, Any]) -> None:
    if posted != seen(shown):
        raise PreconditionFailed("Somebody has changed it since you opened it. Open it again to see how it is now.")


def as_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)
