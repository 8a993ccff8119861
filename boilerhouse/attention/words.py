"""Counts and lists in sentences."""

from __future__ import annotations

from collections.abc import Sequence


def count(number: int, noun: str) -> str:
    """``1 tenant``, ``12 tenants``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def sentence(text: str) -> str:
    """With a full stop, unless it is empty or ends a sentence already."""
    text = text.strip()
    return text if not text or text[-1] in ".!?" else f"{text}."


def age(seconds: float) -> str:
    """Rounded, also seconds, so that a sentence stays the same for a while: ``40 s``, ``12 min``, ``5 h``, ``3 d``."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{round(seconds, -1) if seconds >= 10 else max(0, seconds):.0f} s"


def listed(names: Sequence[str], most: int = 3) -> str:
    """``a``, ``a and b``, ``a, b, c and 4 more``."""
    first = list(names[:most])
    if len(names) > most:
        return f"{', '.join(first)} and {len(names) - most} more"
    return " and ".join(filter(None, [", ".join(first[:-1]), first[-1]])) if first else ""
