"""Forms for the API's own serializers: one validator for programs and people; input is kept after an error."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from django.http import HttpRequest
from django.utils.text import slugify
from rest_framework import serializers

from boilerhouse.core.bounds import MAX_ID, natural
from boilerhouse.core.errors import BoilerhouseError, FieldError, Invalid, PreconditionFailed
from boilerhouse.core.events import afterwards
from boilerhouse.core.quantities import DURATION
from boilerhouse.dashboard import cures, label_words
from boilerhouse.dashboard.conflicts import Conflict, compare
from boilerhouse.web.problems import field_errors

OWN_WORDS = "quantity"
"""The code of errors that already are in the words of a form."""


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
    unit: str = ""
    """The unit of a quantity's number."""
    units: list[str] = field(default_factory=list)
    """The units that a quantity may have; empty for other fields."""
    is_first_wrong: bool = False
    """Whether the page opens at this field."""

    @property
    def pointer(self) -> str:
        return f"/{self.name.replace('.', '/')}"

    @property
    def slug(self) -> str:
        return slugify(self.name)

    @property
    def described_by(self) -> str:
        """The ids of the texts that describe the field."""
        return f"h-{self.name} e-{self.name}" if self.error else f"h-{self.name}"


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
        pairs: Collection[str] = (),
        secrets: Collection[str] = (),
        durations: Mapping[str, int] | None = None,
        tops: Mapping[str, str] | None = None,
    ) -> None:
        """``lists`` are entered as words, ``pairs`` as words NAME=VALUE; ``secrets`` are not shown again; ``durations``
        are milliseconds, entered with a unit, each with its least value other than 0; ``tops`` names for a number the
        field that it must not exceed.
        """
        self._serializer, self._lists, self._pairs, self._durations = serializer, lists, pairs, durations or {}
        self._tops = tops or {}
        self.fields = [
            self._field(
                name, *labels[name], _at(values, name), (choices or {}).get(name, []), is_secret=name in secrets
            )
            for name in names
        ]
        self.serializer_context: dict[str, Any] = {}
        """What the serializer knows besides the input, such as the stored object."""
        self.errors: list[FieldError] = []
        self.conflict: Conflict | None = None
        self.base = as_json(self._texts())

    def _texts(self) -> dict[str, str]:
        """The values of its fields as shown; not of secrets."""
        return {
            entry.name: f"{entry.value} {entry.unit}".strip() if entry.value else ""
            for entry in self.fields
            if not entry.is_secret
        }

    def meet(self, posted: Mapping[str, str], theirs: ApiForm, who: str, at: datetime | None) -> bool:
        """Whether somebody else saved other values since the form was opened; its page then shows both changes.

        ``theirs`` is the form as it would be opened now. A form that does not say what it was opened with meets nobody.
        """
        before = _json_object(posted.get("base"))
        if before is None or before == theirs._texts():
            return False
        self.base = posted["base"]
        self.conflict = compare(before, self._texts(), theirs._texts(), who, at)
        for change in self.conflict.changes:
            at_field = next((entry for entry in self.fields if f"/{entry.name}" == change.pointer), None)
            change.label = at_field.label if at_field else change.pointer
            if at_field and at_field.options:
                change.spell(partial(_label, dict(at_field.options)))
        return True

    def combine(self, posted: Mapping[str, str], theirs: ApiForm, *, keeps_mine: bool) -> None:
        """Afterwards its fields have the values of ``theirs`` with the changes of ``posted``; ``keeps_mine`` decides
        what both have changed."""
        before = _json_object(posted.get("base")) or {}
        other = {entry.name: entry for entry in theirs.fields}
        texts = theirs._texts()
        for entry in self.fields:
            mine = posted.get(entry.name, "").strip()
            unit = posted.get(f"{entry.name}:unit", "")
            text = f"{mine} {unit}".strip() if mine and entry.units else mine
            now = other[entry.name]
            has_changed = texts.get(entry.name) != before.get(entry.name)
            is_theirs = text == before.get(entry.name) or (has_changed and not keeps_mine)
            entry.value, entry.unit = (now.value, now.unit) if is_theirs else (mine, unit)
        self.base = theirs.base

    def _field(
        self, name: str, label: str, hint: str, value: Any, options: list[tuple[str, str]], *, is_secret: bool
    ) -> Field:
        entry = Field(name, label, hint, _text(value), options, is_secret=is_secret)
        if name in self._durations:
            entry.units, entry.unit = DURATION.names, DURATION.usual
            if isinstance(value, int):
                entry.value, entry.unit = DURATION.split(value)
        return entry

    def read(self, posted: Mapping[str, str], **more: Any) -> dict[str, Any] | None:
        """The validated input; None if there are errors, which the form then shows."""
        values: dict[str, Any] = dict(more)
        self.errors = []
        for entry in self.fields:
            typed = posted.get(entry.name, "").strip()
            entry.value = "" if entry.is_secret else typed
            if entry.units:
                entry.unit = posted.get(f"{entry.name}:unit", "")
            if typed and (value := self._value(entry, typed)) is not None:
                _put(values, entry.name, value)
            if entry.units and entry.unit not in entry.units:
                entry.unit = DURATION.usual
        body = self._serializer(data=values, context=self.serializer_context)
        if body.is_valid() and not self.errors:
            return dict(body.validated_data)
        self.errors += field_errors(body.errors)
        remaining = cures.without(values, [error.pointer for error in self.errors])
        rest = self._serializer(data=remaining, context=self.serializer_context)
        if not rest.is_valid():
            self.errors += cures.further(self.errors, field_errors(rest.errors))
        self.errors = [self._cured(error) for error in self.errors]
        self._place()
        return None

    def _value(self, entry: Field, typed: str) -> Any:
        """The value of the submitted text; None, with an error, for text that is no quantity and no label."""
        if entry.name in self._lists:
            return typed.replace(",", " ").split()
        if entry.name in self._pairs:
            return self._labels_in(entry, typed)
        if entry.name not in self._durations:
            return typed
        least = self._durations[entry.name]
        try:
            value = DURATION.parse(typed, entry.unit)
            if 0 < value < least:
                raise ValueError(f"Enter at least {DURATION.show(least)}, or 0.")
        except ValueError as error:
            self.errors.append(FieldError(entry.pointer, str(error), OWN_WORDS))
            return None
        if entry.value:
            entry.value, entry.unit = DURATION.split(value)
        return value

    def _labels_in(self, entry: Field, typed: str) -> dict[str, str] | None:
        try:
            return label_words.parse(typed)
        except ValueError as error:
            self.errors.append(FieldError(entry.pointer, str(error), OWN_WORDS))
            return None

    def _cured(self, error: FieldError) -> FieldError:
        at = next((entry for entry in self.fields if _is_of(error.pointer, entry.name)), None)
        labels = {entry.name.rpartition(".")[2]: entry.label for entry in self.fields}
        if error.code == OWN_WORDS:
            return error
        detail = cures.cure(
            error,
            cures.field_at(self._serializer(), error.pointer),
            kind="ms" if at and at.units else "",
            names=labels,
            most=self._top(at.name) if at else None,
            has_choices=bool(at and at.options),
        )
        return FieldError(error.pointer, detail, error.code)

    def _top(self, name: str) -> int | None:
        """The value of the field that bounds this one, if it is a number."""
        above = next((entry for entry in self.fields if entry.name == self._tops.get(name)), None)
        return natural(above.value, MAX_ID) if above is not None else None

    def _place(self) -> None:
        """Give each field its first error, and open the page at the first of these fields."""
        for entry in self.fields:
            entry.error = next((e.detail for e in self.errors if _is_of(e.pointer, entry.name)), "")
            entry.is_first_wrong = False
        wrong = next((entry for entry in self.fields if entry.error), None)
        if wrong is not None:
            wrong.is_first_wrong = True

    @property
    def noted(self) -> list[tuple[FieldError, Field | None]]:
        """Errors, each with its field; None for one that no field shows."""
        return [
            (error, next((entry for entry in self.fields if _is_of(error.pointer, entry.name)), None))
            for error in self.errors
        ]

    def add(self, error: BoilerhouseError) -> None:
        """Add the errors of a service."""
        errors = error.errors if isinstance(error, Invalid) else [FieldError("/id", error.detail, error.code)]
        labels = {entry.name.rpartition(".")[2]: entry.label for entry in self.fields}
        self.errors += [FieldError(e.pointer, cures.in_words(e.detail, labels), e.code) for e in errors]
        self._place()


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
    if isinstance(value, dict):
        return label_words.spell(value)
    return "" if value is None else str(value)


def _label(options: Mapping[str, str], value: Any) -> str:
    return options.get(value, value or "")


def _json_object(text: str | None) -> dict[str, Any] | None:
    try:
        value = json.loads(text or "")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


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
