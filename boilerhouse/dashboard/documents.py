"""A JSON document edited as a form or as text: one document, one validator, nothing lost between the two.

The whole document is submitted with the form. Shown fields replace its values; the rest stays unchanged. Every button
submits the same form, and its ``do`` is the action: ``save``, ``tab:json``, ``add:/mappings``, ``remove:/mappings/1``,
or a page's own. So everything works without JavaScript.
"""

from __future__ import annotations

import copy
import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from django.http import QueryDict
from django.utils.text import slugify
from rest_framework import serializers

from boilerhouse.api.parsers import check_body
from boilerhouse.core.errors import BoilerhouseError, FieldError, Invalid
from boilerhouse.core.quantities import KINDS
from boilerhouse.dashboard import cures, json_lines
from boilerhouse.dashboard.conflicts import Conflict, combined, compare
from boilerhouse.dashboard.forms import as_json
from boilerhouse.web.problems import field_errors

MAX_ROWS = 40
LONG = 8
"""From this number of sections on, a form has an index."""
MAX_SPOKEN = 200
"""The maximum length of a value in a summary or a comparison."""


@dataclass(frozen=True, slots=True)
class Part:
    """One field of the form."""

    path: str
    """Its path in the section's object, such as ``image``."""
    label: str
    hint: str = ""
    kind: str = "text"
    """``text``, ``number``, ``ms``, ``mb``, ``words`` (a command), ``list``, ``map`` (NAME=value lines), ``flag``,
    ``choice``, ``json`` or ``secret``."""
    options: Sequence[tuple[str, str]] = ()
    default: Any = None
    """The value in effect if the document has none."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Choices that stand for values other than text, such as null."""
    reloads: bool = False
    """Whether a change of the value changes which fields are shown."""
    placeholder: str = ""
    """An example in the empty field."""


@dataclass(frozen=True, slots=True)
class Section:
    """Fields that belong together: of the document, of one object in it, or of each object in a list."""

    title: str
    parts: tuple[Part, ...]
    lede: str = ""
    path: str = ""
    blank: Mapping[str, Any] | None = None
    """The initial value of an added object; an optional object may also be absent."""
    instead: frozenset[str] = frozenset()
    """Texts that may replace the object; it is then absent."""
    otherwise: tuple[Part, ...] = ()
    """Fields to show if the object is absent; from its parent object."""
    is_closed: bool = False
    """Existing objects may be changed and removed, but none added."""
    is_list: bool = False
    noun: str = ""
    is_folded: bool = False
    """Shown as one line with a summary until it is opened."""

    @property
    def key(self) -> str:
        """Names it in links and in the list of open sections."""
        return slugify(self.title)

    def find(self, value: Any) -> Any:
        """The part of the document that it shows; None if absent."""
        inner = get(value, _pointer("", self.path))
        return None if isinstance(inner, str) and inner in self.instead else inner


@dataclass(slots=True)
class ShownPart:
    part: Part
    pointer: str
    text: str
    is_on: bool = False
    error: str = ""
    unit: str = ""
    """The unit of a quantity's number."""
    is_first_wrong: bool = False
    """Whether the page opens at this field."""
    context: str = ""
    """What of the document it belongs to, where the label alone does not say it."""

    @property
    def name(self) -> str:
        """The label with what it belongs to: ``Port 2: Protocol``."""
        return f"{self.context}: {self.part.label}" if self.context else self.part.label

    @property
    def rows(self) -> int:
        return min(MAX_ROWS, max(4, self.text.count("\n") + 2))

    @property
    def slug(self) -> str:
        """The pointer as ``slugify`` writes it: errors link to it."""
        return slugify(self.pointer)

    @property
    def described_by(self) -> str:
        """The ids of the texts that describe the field."""
        return f"f{self.slug}-h f{self.slug}-e" if self.error else f"f{self.slug}-h"

    @property
    def is_wide(self) -> bool:
        return self.part.kind in ("map", "json", "list")

    @property
    def choices(self) -> list[tuple[str, str]]:
        """The available choices, and the current value even if it is not available."""
        options = [value for value, _ in self.part.options]
        return [*self.part.options, *([(self.text, self.text)] if self.text not in options and self.text else [])]

    @property
    def units(self) -> list[str]:
        """The units that a quantity may have; empty for other fields."""
        return KINDS[self.part.kind].names if self.part.kind in KINDS else []


@dataclass(slots=True)
class ShownGroup:
    title: str
    pointer: str
    parts: list[ShownPart]
    can_go: bool


@dataclass(slots=True)
class ShownSection:
    section: Section
    pointer: str
    groups: list[ShownGroup] = field(default_factory=list)
    can_grow: bool = False
    error: str = ""
    """The values that none of its fields shows."""
    is_open: bool = True
    summary: str = ""
    """Its values in one line, for a folded section."""

    @property
    def slug(self) -> str:
        return slugify(self.pointer)

    @property
    def name(self) -> str:
        return self.section.title

    @property
    def parts(self) -> list[ShownPart]:
        return [part for group in self.groups for part in group.parts]

    @property
    def can_go(self) -> bool:
        """Whether the whole section can be removed."""
        return not self.section.is_list and any(group.can_go for group in self.groups)

    @property
    def has_error(self) -> bool:
        return bool(self.error) or any(part.error for part in self.parts)


Sections = Callable[[dict[str, Any]], Sequence[Section]]


class Document:
    """The edited document, in one of its two forms, with its errors."""

    def __init__(self, value: Any, sections: Sections, *, tab: str = "form") -> None:
        self.value, self._sections = value, sections
        self.text = self.base_text = as_json(value)
        self.conflict: Conflict | None = None
        self.is_unsaved = False
        """Whether it has changes that are not saved."""
        self.errors: list[FieldError] = []
        self.do = ""
        self.tab = self._shows(tab)
        self._typed: dict[str, str] = {}
        self._units: dict[str, str] = {}
        self._opened: set[str] = set()

    @classmethod
    def posted(cls, data: QueryDict, sections: Sections) -> Document:
        """Apply the submitted form. ``do`` is then the remaining action: empty if the button only changed the form."""
        is_text = "json" in data
        text = data.get("json" if is_text else "document", "")
        try:
            value = check_body(text)
        except ValueError as error:
            broken = cls({}, sections, tab="json")
            broken.text = text
            broken.errors = [FieldError("", str(error), "malformed")]
            broken.do = "refused"
            broken.base_text, broken.is_unsaved = data.get("base", ""), True
            return broken
        document = cls(value, sections, tab="json" if is_text else "form")
        document.text = text if is_text else document.text
        document.base_text, document.is_unsaved = data.get("base", ""), True
        document._opened = set(data.getlist("open"))
        if not is_text and document.tab == "form":
            document._lay_over(data)
        verb, _, argument = data.get("do", "save").partition(":")
        match verb:
            case "tab":
                document.tab = document._shows(argument)
            case "add":
                document._add(argument)
            case "remove":
                document._remove(argument)
            case _:
                document.do = data.get("do", "save")
        if not is_text or verb == "tab":
            document.text = as_json(document.value)
        return document

    @property
    def rows(self) -> int:
        """The number of lines of the text area."""
        return min(MAX_ROWS, max(12, self.text.count("\n") + 2))

    @property
    def places(self) -> str:
        """Errors for the editor: JSON of (pointer, message)."""
        return json.dumps([(error.pointer, error.detail) for error in self.errors])

    def line_of(self, error: FieldError) -> int | None:
        """The line of the JSON editor to which the error belongs; None in the form, and for text that is no JSON."""
        is_placed = self.tab == "json" and error.pointer and error.code != "malformed"
        return json_lines.line_of(self.text, error.pointer) if is_placed else None

    @property
    def in_lines(self) -> list[tuple[FieldError, int | None]]:
        """The errors of the JSON editor with their lines, first line first."""
        return sorted(((error, self.line_of(error)) for error in self.errors), key=lambda pair: pair[1] or 0)

    @property
    def noted(self) -> list[tuple[FieldError, str, str]]:
        """The form's errors, each with the slug and the label of its field; both are empty if there is none."""
        if self.tab != "form":
            return []
        sections = self.shown()
        places = [_place(sections, error) for error in self.errors]
        return [
            (error, place.slug if place else "", place.name if place else "")
            for error, place in zip(self.errors, places, strict=True)
        ]

    @property
    def base(self) -> Any:
        """The document as it was when it was opened; None if the form does not have it."""
        try:
            return check_body(self.base_text)
        except ValueError:
            return None

    def meet(self, theirs: Any, who: str, at: datetime | None) -> None:
        """Somebody else saved ``theirs`` in the meantime: show both changes, and how to combine them."""
        self.errors = []
        self.conflict = compare(self.base, self.value, theirs, who, at)
        for change in self.conflict.changes:
            part = self._part_at(change.pointer)
            change.label = part.name if part else change.pointer
            if part:
                change.spell(partial(spoken, part.part))

    def combine(self, theirs: Any, *, keeps_mine: bool) -> None:
        """Afterwards it is ``theirs`` with the changes of the form; ``keeps_mine`` decides what both have changed."""
        self.value = combined(self.base, self.value, theirs, keeps_mine=keeps_mine)
        self.text, self.base_text = as_json(self.value), as_json(theirs)

    def _part_at(self, pointer: str) -> ShownPart | None:
        fields = self._fields() if self._fits() else iter(())
        return next((part for part in fields if part.pointer == pointer), None)

    @property
    def has_index(self) -> bool:
        """Whether its form is so long that a list of its sections helps."""
        return len(self._sections(self.value)) >= LONG

    @property
    def status(self) -> int:
        return 422 if self.errors else 409 if self.conflict else 200

    def read(self, serializer: type[serializers.Serializer[Any]], **more: Any) -> Any:
        """The valid serializer, or None with ``errors`` filled: all of them, also next to text that is no value."""
        if self.do == "refused":
            return None
        body = serializer(data=cures.without(self.value, list(self._typed)), **more)
        if body.is_valid() and not self.errors:
            return body
        self.errors += cures.further(self.errors, field_errors(body.errors))
        if self.tab == "form":
            rest = serializer(data=cures.without(self.value, [error.pointer for error in self.errors]), **more)
            if not rest.is_valid():
                self.errors += cures.further(self.errors, field_errors(rest.errors))
            self.errors = [self._cured(error, serializer()) for error in self.errors]
        return None

    def _cured(self, error: FieldError, serializer: Any) -> FieldError:
        part = self._part_at(error.pointer)
        if part is None or error.pointer in self._typed:
            return error
        field = cures.field_at(serializer, error.pointer)
        detail = cures.cure(error, field, kind=part.part.kind, has_choices=bool(part.part.options))
        return FieldError(error.pointer, detail, error.code)

    def add(self, error: BoilerhouseError) -> None:
        """Add the errors of a service."""
        self.errors += error.errors if isinstance(error, Invalid) else [FieldError("", error.detail, error.code)]

    def shown(self) -> list[ShownSection]:
        """The form, with each error at its field."""
        sections: list[ShownSection] = []
        for section in self._sections(self.value):
            pointer = _pointer("", section.path)
            items = section.find(self.value)
            is_absent = items is None and section.blank is not None
            section_shown = ShownSection(
                section, pointer, can_grow=(section.is_list or is_absent) and not section.is_closed,
                is_open=not section.is_folded or section.key in self._opened,
            )  # fmt: skip
            if section.is_list:
                for number in range(len(items or [])):
                    at = f"{pointer}/{number}"
                    section_shown.groups.append(
                        ShownGroup(f"{section.noun} {number + 1}", at, self._parts(section, at), can_go=True)
                    )
            elif is_absent:
                above = pointer.rpartition("/")[0]
                if section.otherwise:
                    parts = [self._part(part, _pointer(above, part.path)) for part in section.otherwise]
                    section_shown.groups.append(ShownGroup("", above, parts, can_go=False))
            else:
                can_go = section.blank is not None
                section_shown.groups.append(ShownGroup("", pointer, self._parts(section, pointer), can_go=can_go))
            for group in section_shown.groups:
                for part in group.parts:
                    part.context = group.title or (section.title if sections else "")
            section_shown.summary = self._summary(section_shown)
            sections.append(section_shown)
        for error in self.errors:
            place = _place(sections, error)
            if place and not place.error:
                place.error = error.detail
        for section_shown in sections:
            section_shown.is_open = section_shown.is_open or section_shown.has_error
        wrong = next((part for section_shown in sections for part in section_shown.parts if part.error), None)
        if wrong is not None:
            wrong.is_first_wrong = True
        return sections

    def _summary(self, section: ShownSection) -> str:
        """What the document itself says in this section; defaults are left out."""
        own = [part for part in section.parts if has(self.value, part.pointer)]
        if section.section.is_list:
            names = [spoken(group.parts[0].part, get(self.value, group.parts[0].pointer)) for group in section.groups]
            return ", ".join(filter(None, names[:5])) + (", …" if len(names) > 5 else "") or "None"
        texts = [(part.part.label, spoken(part.part, get(self.value, part.pointer))) for part in own]
        values = [f"{label}: {text}" for label, text in texts if text][:4]
        if values:
            return " · ".join(values)
        return "Defaults" if any(part.part.default is not None for part in section.parts) else "Not set"

    def _parts(self, section: Section, base: str) -> list[ShownPart]:
        return [self._part(part, _pointer(base, part.path)) for part in section.parts]

    def _part(self, part: Part, pointer: str) -> ShownPart:
        value = get(self.value, pointer)
        if value is None and not (part.values and has(self.value, pointer)):
            value = part.default
        text, unit = _text(part, value), ""
        if part.kind in KINDS:
            unit = KINDS[part.kind].usual
            if type(value) is int and value >= 0:
                text, unit = KINDS[part.kind].split(value)
        return ShownPart(
            part, pointer, self._typed.get(pointer, text), is_on=value is True, unit=self._units.get(pointer, unit)
        )

    def _shows(self, tab: str) -> str:
        return "form" if tab != "json" and self._fits() else "json"

    def _fits(self) -> bool:
        """Whether the form can show it: every section finds an object, a list of objects, or nothing."""
        if not isinstance(self.value, dict):
            return False
        for section in self._sections(self.value):
            value = section.find(self.value)
            items = value if section.is_list and isinstance(value, list) else [value]
            if section.is_list and value is not None and not isinstance(value, list):
                return False
            if any(item is not None and not isinstance(item, dict) for item in items):
                return False
        return True

    def _fields(self) -> Iterator[ShownPart]:
        for section in self.shown():
            for group in section.groups:
                yield from group.parts

    def _lay_over(self, data: QueryDict) -> None:
        for part in list(self._fields()):
            typed = data.get(part.pointer, "").replace("\r\n", "\n")
            unit = data.get(f"{part.pointer}:unit", "")
            try:
                value = part.pointer in data if part.part.kind == "flag" else _value(part.part, typed, unit)
            except ValueError as error:
                self._typed[part.pointer] = typed
                if unit in part.units:
                    self._units[part.pointer] = unit
                self.errors.append(FieldError(part.pointer, str(error), "malformed"))
                continue
            if value is None and typed.strip() not in part.part.values:
                if part.text or get(self.value, part.pointer) != []:  # it may have a value that shows as nothing
                    unset(self.value, part.pointer)
            else:
                put(self.value, part.pointer, value)

    def _add(self, pointer: str) -> None:
        for section in self._sections(self.value):
            if _pointer("", section.path) == pointer and section.blank is not None and not section.is_closed:
                self._opened.add(section.key)
                blank = json.loads(json.dumps(section.blank))
                if section.is_list:
                    put(self.value, pointer, [*(get(self.value, pointer) or []), blank])
                elif section.find(self.value) is None:
                    put(self.value, pointer, blank)

    def _remove(self, pointer: str) -> None:
        for section in self.shown():
            if any(group.pointer == pointer and group.can_go for group in section.groups):
                unset(self.value, pointer)
                return


def _place(sections: Sequence[ShownSection], error: FieldError) -> ShownPart | ShownSection | None:
    """The form's field closest to an error's pointer; None if there is none on the path."""
    places: list[ShownPart | ShownSection] = [
        *(part for section in sections for group in section.groups for part in group.parts),
        *(section for section in sections if section.pointer),
    ]
    near = [place for place in places if f"{error.pointer}/".startswith(f"{place.pointer}/")]
    return max(near, key=lambda place: len(place.pointer), default=None)


def _pointer(base: str, path: str) -> str:
    return f"{base}/{path}" if path else base


def _names(pointer: str) -> list[str]:
    return pointer.split("/")[1:]


def get(value: Any, pointer: str) -> Any:
    """The value at the pointer; None if there is none."""
    for name in _names(pointer):
        if isinstance(value, dict):
            value = value.get(name)
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return value


def has(value: Any, pointer: str) -> bool:
    """Whether the parent object has a value for it, even null."""
    above, _, last = pointer.rpartition("/")
    holder = get(value, above)
    return isinstance(holder, dict) and last in holder


def put(value: Any, pointer: str, new: Any) -> None:
    """Set the value at the pointer, creating parent objects."""
    *way, last = _names(pointer)
    for name in way:
        inner = value[int(name)] if isinstance(value, list) else value.get(name)
        if inner is None:
            inner = value[name] = {}
        value = inner
    value[int(last) if isinstance(value, list) else last] = new


def unset(value: Any, pointer: str) -> None:
    """Remove the value at the pointer."""
    above, _, last = pointer.rpartition("/")
    holder = get(value, above)
    if isinstance(holder, dict):
        holder.pop(last, None)
    elif isinstance(holder, list):
        del holder[int(last)]


def _text(part: Part, value: Any) -> str:
    for text, stands_for in part.values.items():
        if type(value) is type(stands_for) and value == stands_for:
            return text
    if value is None or part.kind == "flag":
        return ""
    if part.kind == "words" and isinstance(value, list):
        return shlex.join(str(item) for item in value)
    if part.kind == "list" and isinstance(value, list):
        return "\n".join(str(item) for item in value)
    if part.kind == "map" and isinstance(value, dict):
        if any(not isinstance(item, str) or "\n" in item for item in value.values()):
            return as_json(value)
        return "\n".join(f"{name}={item}" for name, item in value.items())
    if part.kind == "json" or isinstance(value, dict | list):
        return as_json(value)
    return str(value)


def spoken(part: Part, value: Any) -> str:
    """The value as a person would say it; empty for none."""
    if part.kind == "flag":
        return "on" if value is True else ""
    if part.kind == "secret":
        return "set" if value else ""
    if part.kind in KINDS and type(value) is int and value >= 0:
        return KINDS[part.kind].show(value)
    text = _text(part, value)
    if part.kind == "choice":
        text = dict(part.options).get(text, text)
    return text if len(text) <= MAX_SPOKEN else f"{text[:MAX_SPOKEN]}…"


def _value(part: Part, typed: str, unit: str = "") -> Any:
    """The value of the submitted text; None for nothing. Raises ValueError with a message for people."""
    text = typed.strip()
    if not text:
        return None
    if text in part.values:
        return copy.deepcopy(part.values[text])
    match part.kind:
        case "ms" | "mb":
            return KINDS[part.kind].parse(text, unit)
        case "number":
            for convert in (int, float):
                try:
                    return convert(text)
                except ValueError:
                    continue
            return text  # the validator reports the error
        case "words":
            try:
                return shlex.split(text)
            except ValueError as error:
                raise ValueError(f"Not a valid command line: {error}.") from error
        case "list":
            return text.replace(",", " ").split()
        case "map":
            return check_body(text) if text.startswith("{") else dict(map(_assignment, _lines(typed)))
        case "json":
            return check_body(text)
    return typed if part.kind == "secret" else text


def _lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.strip()]


def _assignment(line: str) -> tuple[str, str]:
    name, equals, value = line.partition("=")
    if not equals:
        raise ValueError(f"Enter one NAME=value per line; “{line.strip()[:60]}” has no =.")
    return name.strip(), value
