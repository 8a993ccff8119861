"""Durations as people write them in forms: ``30 min``, ``1 h 30 min``, ``0``. The API has milliseconds."""

from __future__ import annotations

import re

from boilerhouse.core.bounds import TEN_YEARS_MS

UNITS_MS = {"d": 86_400_000, "h": 3_600_000, "min": 60_000, "s": 1000, "ms": 1}
_PART = re.compile(r"\s*(\d{1,12})\s*(d|h|min|s|ms)\b", re.ASCII)
EXAMPLES = "such as 90 s, 30 min, 8 h or 7 d"


def show(ms: int) -> str:
    """``1 h 30 min``: exact, so that a form which nobody changed changes nothing."""
    parts = []
    for unit, size in UNITS_MS.items():
        if ms >= size:
            parts.append(f"{ms // size} {unit}")
            ms %= size
    return " ".join(parts) or "0"


def parse(text: str, least_ms: int = 0) -> int:
    """Milliseconds; 0 needs no unit. Raises ValueError with a message for people.

    A number without a unit is refused, because milliseconds, seconds and minutes are all plausible.
    """
    if text.strip() == "0":
        return 0
    total, at = 0, 0
    while found := _PART.match(text, at):
        total += int(found[1]) * UNITS_MS[found[2]]
        at = found.end()
    if not at or text[at:].strip():
        raise ValueError(f"Enter a number with a unit, {EXAMPLES}.")
    if total > TEN_YEARS_MS:
        raise ValueError("Enter at most ten years.")
    if 0 < total < least_ms:
        raise ValueError(f"Enter at least {show(least_ms)}, or 0.")
    return total
