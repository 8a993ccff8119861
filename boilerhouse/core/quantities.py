"""Durations and sizes as people enter them: a number and a unit. The API has milliseconds and MB.

A number without a unit is refused, because milliseconds, seconds and minutes are all plausible.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from boilerhouse.core.bounds import MAX_MB, TEN_YEARS_MS

MAX_TEXT = 40
"""The maximum length of a typed quantity; longer ones are not parsed."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of quantity with its units."""

    units: tuple[tuple[str, int], ...]
    """The name of each unit and its size in the API's unit, largest first."""
    hidden: tuple[tuple[str, int], ...]
    """Units that may be typed but are not offered."""
    usual: str
    """The unit that an empty field offers."""
    most: int
    """The maximum, in the API's unit."""
    example: str

    @property
    def names(self) -> list[str]:
        """The offered units, smallest first."""
        return [name for name, _ in reversed(self.units)]

    def split(self, value: int) -> tuple[str, str]:
        """The exact number and its unit: the largest unit in which it is whole, otherwise the smallest."""
        if not value:
            return "0", self.usual
        name, size = next(((name, size) for name, size in self.units if value % size == 0), self.units[-1])
        return _plain(Decimal(value) / size), name

    def show(self, value: int) -> str:
        """``90 min``: exact, so that what is shown can be typed."""
        number, unit = self.split(value)
        return f"{number} {unit}" if value else number

    def parse(self, text: str, unit: str = "") -> int:
        """The value of a number in ``unit``, or of a text with its own units such as ``1 h 30 min``.

        Raises ValueError with a message for people. 0 needs no unit.
        """
        sizes = dict((*self.units, *self.hidden))
        typed = text.strip()
        if len(typed) > MAX_TEXT or not _PARTS.fullmatch(typed):
            raise ValueError(f"Enter a number, {self.example}.")
        total = Decimal(0)
        for number, own in _PART.findall(typed):
            name = own or unit
            if name not in sizes and Decimal(number):
                raise ValueError(f"Enter a number with a unit, {self.example}.")
            total += Decimal(number) * sizes.get(name, 1)
        if total > self.most:
            raise ValueError(f"Enter at most {self.show(self.most)}.")
        if total != int(total):
            raise ValueError(f"Enter a number that is not so exact, {self.example}.")
        return int(total)


_PART = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*([a-zA-Z]{0,5})\b", re.ASCII)
_PARTS = re.compile(rf"(?:{_PART.pattern}\s*)+", re.ASCII)

DURATION = Kind(
    units=(("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000)),
    hidden=(("ms", 1),),
    usual="s",
    most=TEN_YEARS_MS,
    example="such as 90 s, 30 min, 8 h or 7 d",
)
SIZE = Kind(
    units=(("GB", 1024), ("MB", 1)),
    hidden=(("TB", 1 << 20),),
    usual="MB",
    most=MAX_MB,
    example="such as 512 MB or 4 GB",
)
KINDS = {"ms": DURATION, "mb": SIZE}
"""By the kind of a form's field."""


def _plain(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
