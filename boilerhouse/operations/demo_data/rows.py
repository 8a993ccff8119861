"""Collects the rows of demo data and writes them in a few statements.

The rows are of the past, so nothing here makes a transition and nothing wakes a reader.
"""

from __future__ import annotations

import random
import uuid
from collections import defaultdict
from datetime import datetime
from typing import Any, TypeVar

from django.db.models import Model

from boilerhouse.core.events import ROUTINE
from boilerhouse.core.models import Event

Row = TypeVar("Row", bound=Model)


class Rows:
    """New rows by model. Each random number comes from the seed, so the same seed and time make the same rows.

    ``days`` is how far the history goes back.
    """

    def __init__(self, seed: int, now: datetime, days: int) -> None:
        self.days = days
        self.random = random.Random(seed)  # noqa: S311
        self.now = now
        self._rows: dict[type[Model], list[Model]] = defaultdict(list)

    def uuid(self, at: datetime) -> uuid.UUID:
        """A UUID of version 7 of this moment."""
        value = int(at.timestamp() * 1000) << 80 | self.random.getrandbits(80)
        value = value & ~(0xF << 76) | 0x7 << 76
        return uuid.UUID(int=value & ~(0x3 << 62) | 0x2 << 62)

    def hex(self, length: int) -> str:
        return f"{self.random.getrandbits(length * 4):0{length}x}"

    def add(self, model: type[Row], **fields: Any) -> Row:
        """A row that ``write`` inserts."""
        row = model(**fields)
        self._rows[model].append(row)
        return row

    def event(self, type: str, at: datetime, *, actor: str = "system", **fields: Any) -> None:
        """An event of the past; ``payload`` is its payload, the other fields are columns."""
        if at <= self.now:
            fields = {name: str(value or "") if name.endswith("_id") else value for name, value in fields.items()}
            fields.setdefault("is_routine", type in ROUTINE)
            self.add(Event, type=type, created_at=at, actor=actor, **fields)

    def of(self, model: type[Row]) -> list[Row]:
        """The rows of a model so far."""
        return self._rows[model]  # type: ignore[return-value]

    def write(self) -> None:
        """Insert all rows, models in the order of their first row, events in the order of their times."""
        events = self._rows.pop(Event, [])
        for model, rows in self._rows.items():
            model._base_manager.bulk_create(rows, batch_size=500)
        events.sort(key=lambda event: event.created_at)  # type: ignore[attr-defined]
        self._rows[Event] = Event._base_manager.bulk_create(events, batch_size=500)  # type: ignore[arg-type, assignment]
