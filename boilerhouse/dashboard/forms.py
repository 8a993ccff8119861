"""Forms for the API's own serializers: one validator for programs and people; input is kept after an error."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest
from rest_framework import serializers

from boilerhouse.core.errors import BoilerhouseError, FieldError, Invalid, PreconditionFailed
from boilerhouse.core.events import afterwards
from boilerhouse.dashboard import durations as duration_text
from boilerhouse.web.problems import field_errors


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
    """Some fields of a serializer; ``network.dns`` is the field ``dns`` of its field ``network``."""

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
        durations: Mapping[str, int] | None = None,
    ) -> None:
        """``lists`` are entered as words; ``secrets`` are not shown again; ``durations`` are milliseconds, entered with
        a unit, each with its least value other than 0."""
        self._serializer, self._lists, self._durations = serializer, lists, durations or {}
        self.fields = [
            Field(
                name,
                *labels[name],
                self._shown(name, _at(values, name)),
                (choices or {}).get(name, []),
                is_secret=name in secrets,
            )
            for name in names
        ]
        self.errors: list[FieldError] = []

    def read(self, posted: Mapping[str, str], **more: Any) -> dict[str, Any] | None:
        """The validated input; None if there are errors, which the form then shows."""
        values: dict[str, Any] = dict(more)
        self.errors = []
        for field in self.fields:
            typed = posted.get(field.name, "").strip()
            field.value = "" if field.is_secret else typed
            if typed:
                _put(values, field.name, self._value(field.name, typed))
        body = self._serializer(data=values)
        if body.is_valid() and not self.errors:
            return dict(body.validated_data)
        self.errors += field_errors(body.errors)
        for field in self.fields:
            field.error = next((e.detail for e in self.errors if _is_of(e.pointer, field.name)), "")
        return None

    def _shown(self, name: str, value: Any) -> str:
        is_duration = name in self._durations and isinstance(value, int)
        return duration_text.show(value) if is_duration else _text(value)

    def _value(self, name: str, typed: str) -> Any:
        if name in self._lists:
            return typed.replace(",", " ").split()
        if name in self._durations:
            try:
                return duration_text.parse(typed, self._durations[name])
            except ValueError as error:
                self.errors.append(FieldError(f"/{name.replace('.', '/')}", str(error), "malformed"))
                return 0
        return typed

    def add(self, error: BoilerhouseError) -> None:
        """Add the errors of a service."""
        errors = error.errors if isinstance(error, Invalid) else [FieldError("/id", error.detail, error.code)]
        self.errors += errors
        for field in self.fields:
            field.error = field.error or next((e.detail for e in errors if _is_of(e.pointer, field.name)), "")


USED_FORMS = "used_forms"
MOST_USED_FORMS = 50


def is_first(request: HttpRequest) -> bool:
    """Whether this session sends the form with this ``form_id`` for the first time; a reload sends it again.

    A form that fails has not been sent: it is remembered when what it changes is committed.
    """
    form_id = request.POST.get("form_id", "")[:32]
    if form_id and form_id in request.session.get(USED_FORMS, []):
        return False
    if form_id:
        afterwards(lambda: _remember(request, form_id))
    return True


def _remember(request: HttpRequest, form_id: str) -> None:
    used = request.session.get(USED_FORMS, [])
    request.session[USED_FORMS] = [*used, form_id][-MOST_USED_FORMS:]


def _at(values: Mapping[str, Any], name: str) -> Any:
    for part in name.split("."):
        values = (values or {}).get(part)  # type: ignore[assignment]
    return values


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    *way, last = name.split(".")
    for part in way:
        values = values.setdefault(part, {})
    values[last] = value


def _is_of(pointer: str, name: str) -> bool:
    return f"{pointer}/".startswith(f"/{name.replace('.', '/')}/")


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "" if value is None else str(value)


def version_of(document: Mapping[str, Any]) -> str:
    """A version mark in a form, to detect a change by someone else before it is submitted."""
    return hashlib.sha256(as_json(document).encode()).hexdigest()[:32]


def check_version(posted: str, document: Mapping[str, Any]) -> None:
    if posted != version_of(document):
        raise PreconditionFailed(
            "Someone else changed this after you opened it. Reload the page to see the current values."
        )


def as_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)
