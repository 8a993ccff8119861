"""Two people who change one document at a time: what each has changed, and both changes combined.

Objects are combined member by member; a list is one value, because its items have no names.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.http import HttpRequest

from boilerhouse.core.models import AuditEntry

_ABSENT: Any = type("Absent", (), {})


@dataclass(slots=True)
class Change:
    """One value that differs from the opened document; empty texts stand for no value."""

    pointer: str
    values: tuple[Any, Any, Any]
    """Before, mine, theirs."""
    label: str = ""
    before: str = ""
    mine: str = ""
    theirs: str = ""

    @property
    def is_both(self) -> bool:
        """Whether both have changed it, and not to the same value."""
        before, mine, theirs = self.values
        return before not in (mine, theirs) and mine != theirs

    def spell(self, words: Callable[[Any], str]) -> None:
        """Afterwards its texts are those that ``words`` gives for the values."""
        self.before, self.mine, self.theirs = (words(value) for value in self.values)


@dataclass(slots=True)
class Conflict:
    """What somebody else saved while a form was open."""

    who: str
    at: datetime | None
    changes: list[Change]

    @property
    def theirs(self) -> list[Change]:
        return [change for change in self.changes if change.values[0] != change.values[2]]

    @property
    def mine(self) -> list[Change]:
        return [change for change in self.changes if change.values[0] != change.values[1]]

    @property
    def both(self) -> list[Change]:
        return [change for change in self.changes if change.is_both]


def last_change(kind: str, object_id: str) -> tuple[str, datetime | None]:
    """Who edited the object last, and when, by the audit log."""
    row = AuditEntry.objects.filter(kind=kind, object_id=object_id, action=f"{kind}.update").order_by("-at").first()
    return (row.actor.removeprefix("user "), row.at) if row else ("Someone else", None)


def wish(request: HttpRequest) -> bool | None:
    """Whether the form asks to keep its own changes where both differ; None if it does not ask to combine."""
    return {"keep:mine": True, "keep:theirs": False}.get(request.POST.get("do", ""))


def compare(base: Any, mine: Any, theirs: Any, who: str, at: datetime | None) -> Conflict:
    """What each has changed. Without ``base``, everything that differs counts as changed by both."""
    old, own, other = (_leaves(value) for value in (base, mine, theirs))
    changes = []
    for pointer in dict.fromkeys((*old, *own, *other)):
        values = (old.get(pointer), own.get(pointer), other.get(pointer))
        if values[0] != values[1] or values[0] != values[2]:
            change = Change(pointer, values, pointer)
            change.spell(_text)
            changes.append(change)
    return Conflict(who, at, changes)


def combined(base: Any, mine: Any, theirs: Any, *, keeps_mine: bool) -> Any:
    """``theirs`` with what ``mine`` changes; ``keeps_mine`` decides what both have changed."""
    if mine == base:
        return copy.deepcopy(theirs)
    if theirs in (base, mine):
        return copy.deepcopy(mine)
    if isinstance(mine, dict) and isinstance(theirs, dict):
        before = base if isinstance(base, dict) else {}
        merged = {}
        for name in dict.fromkeys((*theirs, *mine)):
            value = combined(
                before.get(name, _ABSENT), mine.get(name, _ABSENT), theirs.get(name, _ABSENT), keeps_mine=keeps_mine
            )
            if value is not _ABSENT:
                merged[name] = value
        return merged
    return copy.deepcopy(mine if keeps_mine else theirs)


def _leaves(value: Any, pointer: str = "") -> dict[str, Any]:
    """The values by pointer; objects are entered, everything else is one value. No value is as good as null."""
    if not isinstance(value, dict):
        return {} if value is None else {pointer: value}
    leaves: dict[str, Any] = {}
    for name, inner in value.items():
        leaves |= _leaves(inner, f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}")
    return leaves


def _text(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
