"""Percentiles of claim times: one rule for every page and the API."""

from __future__ import annotations

from collections.abc import Mapping


def percentile(counts: Mapping[int, int], percent: int) -> int | None:
    """The smallest value that at least ``percent`` of the counted values do not exceed; None without values."""
    total, passed = sum(counts.values()), 0
    for value in sorted(counts):
        passed += counts[value]
        if passed * 100 >= total * percent:
            return value
    return None
