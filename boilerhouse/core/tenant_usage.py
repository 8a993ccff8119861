"""What tenants use, added up per day and per month of UTC, and kept longer than what it is measured from.

An amount is added in the transaction that marks its source as counted, so it is never added twice (ADR 75).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields
from datetime import UTC, date, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection
from django.db.models import QuerySet

from boilerhouse.core import clock
from boilerhouse.core.models import TenantUsage

AT_ONCE = 200
"""The maximum number of rows in one statement."""


@dataclass(slots=True)
class Amounts:
    """What is added to a day and its month; the units are those of the columns of the same names."""

    held_ms: int = 0
    cpu_ns: int = 0
    memory_byte_s: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0

    def __iadd__(self, other: Amounts) -> Amounts:
        for name in COLUMNS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self


COLUMNS = tuple(field.name for field in fields(Amounts))
Key = tuple[str, date]
"""Tenant and day."""

_ADD = """
INSERT INTO {table} (tenant_id, period, start, {columns}) VALUES {rows}
ON CONFLICT (tenant_id, period, start) DO UPDATE SET {sums}
"""


def add(used: Mapping[Key, Amounts]) -> None:
    """Add the amounts to the tenants' days and months. Call it in the transaction that marks them as counted."""
    totals: dict[tuple[str, str, date], Amounts] = {}
    for (tenant_id, day), amounts in used.items():
        if not any(astuple(amounts)):
            continue
        for period, start in (("day", day), ("month", day.replace(day=1))):
            total = totals.setdefault((tenant_id, period, start), Amounts())
            total += amounts
    keys = sorted(totals)  # always in the same order: two transactions never wait for each other
    for at in range(0, len(keys), AT_ONCE):
        part = keys[at : at + AT_ONCE]
        _add([(*key, *astuple(totals[key])) for key in part])


def _add(rows: list[tuple[Any, ...]]) -> None:
    table, adapt = TenantUsage._meta.db_table, connection.ops.adapt_datefield_value
    sql = _ADD.format(
        table=table,
        columns=", ".join(COLUMNS),
        rows=", ".join([f"({', '.join(['%s'] * (3 + len(COLUMNS)))})"] * len(rows)),
        sums=", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in COLUMNS),
    )
    values = [adapt(value) if isinstance(value, date) else value for row in rows for value in row]
    with connection.cursor() as cursor:
        cursor.execute(sql, values)


def day_of(at: datetime) -> date:
    return at.astimezone(UTC).date()


def midnight_after(at: datetime) -> datetime:
    """The start of the next day of UTC."""
    return datetime.combine(day_of(at) + timedelta(days=1), datetime.min.time(), UTC)


_MONTH = re.compile(r"20\d\d-\d\d", re.ASCII)


def month_of(text: str) -> date:
    """The first day of ``2026-11``. Raises ValueError."""
    if not _MONTH.fullmatch(text):
        raise ValueError(text)
    return date.fromisoformat(f"{text}-01")


def this_month() -> date:
    return day_of(clock.now()).replace(day=1)


def month_after(month: date) -> date:
    """The first day of the next month."""
    return (month + timedelta(days=31)).replace(day=1)


def month_before(month: date) -> date:
    return (month - timedelta(days=1)).replace(day=1)


def of_month(month: date, period: TenantUsage.Period = TenantUsage.Period.MONTH) -> QuerySet[TenantUsage]:
    """All tenants' rows of the month, or of its days."""
    if period == TenantUsage.Period.MONTH:
        return TenantUsage.objects.filter(period=period, start=month)
    return TenantUsage.objects.filter(period=period, start__gte=month, start__lt=month_after(month))


def forget_old() -> int:
    """Delete days and months that started before the retention. Returns how many."""
    old = clock.now() - timedelta(seconds=int(settings.BOILERHOUSE_TENANT_USAGE_RETENTION_S))
    return TenantUsage.objects.filter(start__lt=day_of(old)).delete()[0]
