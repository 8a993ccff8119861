"""Whole steps of time. What is drawn between whole steps stays the same until the next one, so an open page need not
receive it again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def floor(at: datetime, step: timedelta) -> datetime:
    """The last whole step at or before ``at``."""
    return at - (at - EPOCH) % step


def ceil(at: datetime, step: timedelta) -> datetime:
    """The first whole step at or after ``at``."""
    return at + (EPOCH - at) % step
