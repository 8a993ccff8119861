"""A document in words, by the sections of its form: what a page shows of it, and how two of them differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from boilerhouse.dashboard.documents import Document, Sections, ShownGroup, ShownPart, ShownSection, get, has, spoken

ONE_LINE = 2
"""An optional section with at most this many fields is one row."""


@dataclass(frozen=True, slots=True)
class Row:
    """One fact: what, and its value in words."""

    label: str
    text: str


@dataclass(frozen=True, slots=True)
class Group:
    title: str
    rows: list[Row]


@dataclass(frozen=True, slots=True)
class Difference:
    """A fact that differs; an empty text stands for no value."""

    label: str
    before: str
    after: str


def groups(value: dict[str, Any], sections: Sections, titles: Sequence[tuple[str, Sequence[str]]]) -> list[Group]:
    """The document's facts by group; ``titles`` names the sections of each. Empty groups are left out.

    Sections that no group names are in the first.
    """
    document = Document(value, sections)
    rows = {section.section.title: _rows(section, document.value) for section in document.shown()}
    named = {title for _, members in titles for title in members}
    others = [title for title in rows if title not in named]
    result = []
    for position, (title, members) in enumerate(titles):
        chosen = [*members, *(others if position == 0 else [])]
        result.append(Group(title, [row for member in chosen for row in rows.get(member, [])]))
    return [group for group in result if group.rows]


def differences(old: dict[str, Any], new: dict[str, Any], sections: Sections) -> list[Difference]:
    """The facts in which two documents differ, in the order of the form."""
    before, after = _facts(old, sections), _facts(new, sections)
    labels = dict.fromkeys((*after, *before))
    return [
        Difference(label, before.get(label, ""), after.get(label, ""))
        for label in labels
        if before.get(label, "") != after.get(label, "")
    ]


def _facts(value: dict[str, Any], sections: Sections) -> dict[str, str]:
    document = Document(value, sections)
    facts: dict[str, str] = {}
    for position, section in enumerate(document.shown()):
        title = section.section.title
        for row in _rows(section, document.value, is_whole=True):
            name = row.label if row.label == title or not position else f"{title}: {row.label}"
            facts[name] = f"{facts[name]}, {row.text}" if name in facts else row.text
    return facts


def _rows(part_of_form: ShownSection, value: Any, *, is_whole: bool = False) -> list[Row]:
    """``is_whole``: long texts are not cut, so that a difference at their end counts."""
    section = part_of_form.section
    if section.is_list:
        return [Row(_name_of(group, value), _line(group.parts[1:], value)) for group in part_of_form.groups]
    own = [part for part in part_of_form.parts if has(value, part.pointer)]
    if section.blank is not None and len(part_of_form.parts) <= ONE_LINE and part_of_form.can_go:
        line = _line(own, value)
        return [Row(section.title, line)] if line else []
    facts = [(part.part.label, _whole(part, value) if is_whole else _value_text(part, value)) for part in own]
    return [Row(label, text) for label, text in facts if text]


def _name_of(group: ShownGroup, value: Any) -> str:
    first = group.parts[0]
    return f"{group.title.rpartition(' ')[0]} {_value_text(first, value)}"


def _line(parts: Sequence[ShownPart], value: Any) -> str:
    texts = []
    for part in parts:
        if part.part.kind == "flag":
            texts += [part.part.label.lower()] if get(value, part.pointer) is True else []
        elif text := _value_text(part, value):
            texts.append(text)
    return ", ".join(texts) or "default"


def _value_text(part: ShownPart, value: Any) -> str:
    inner = get(value, part.pointer)
    if part.part.kind == "flag":
        return "yes" if inner is True else "no" if part.part.default is True else ""
    if inner is None and None not in part.part.values.values():
        return ""
    if inner in ([], {}):
        return "none" if part.part.values else ""
    return spoken(part.part, inner)


def _whole(part: ShownPart, value: Any) -> str:
    inner = get(value, part.pointer)
    return part.text if part.part.kind in ("json", "map") and inner else _value_text(part, value)
