"""What claims use, counted into the tenants' usage while its samples exist (ADR 75).

A claim is counted from where its row says that the last count ended. The row and the amounts change in one
transaction, and only if the row still says so: two controllers, or a count that was killed, add nothing twice.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction

from boilerhouse.core import clock, tenant_usage
from boilerhouse.core.tenant_usage import Amounts, Key
from pools.models import ContainerUsage, Pool
from tenants import standing
from tenants.models import Assignment, AssignmentQuerySet

BATCH = 200
SAMPLE_STANDS = timedelta(seconds=60)
"""How long a sample of memory stands for the time after it; later there is none, and nothing is counted."""
COLUMNS = (
    "pk", "tenant_id", "container_ref", "assigned_at", "last_activity_at", "held_until", "counted_to", "counted_cpu_ns",
    "is_counted",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sample:
    at: datetime
    cpu_ns: int
    memory_bytes: int


@dataclass(slots=True)
class Counting:
    """The part of a claim's use that is counted now."""

    row: Assignment
    start: datetime
    end: datetime
    is_first: bool
    samples: list[Sample] = field(default_factory=list)
    """Those of its container from shortly before ``start``, in order."""


def count(until: datetime | None = None) -> int:
    """Count the use of all claims up to ``until``, or up to now. Returns how many claims were counted."""
    now, counted, after = until or clock.now(), 0, None
    rows = due()
    while batch := list((rows.filter(pk__gt=after) if after else rows)[:BATCH]):
        counted += _count(batch, now)
        after = batch[-1].pk
    return counted


def count_pool(sender: Any, instance: Pool, **_: Any) -> None:
    """Count the use of the pool's claims, which are deleted with it."""
    rows = list(due().filter(pool=instance))
    _count(rows, clock.now())


def due() -> AssignmentQuerySet:
    """Claims with use that is not counted yet, or that goes on."""
    return Assignment.objects.filter(is_counted=False, assigned_at__isnull=False).only(*COLUMNS).order_by("pk")


def _count(rows: Sequence[Assignment], now: datetime) -> int:
    parts = [_part(row, now) for row in rows]
    _read_samples(parts)
    used: dict[UUID, dict[Key, Amounts]] = {part.row.pk: _use_of(part) for part in parts}
    by_before: dict[datetime | None, list[Counting]] = defaultdict(list)
    for part in parts:
        by_before[part.row.counted_to].append(part)
    counted = sum(_store(before, same, used) for before, same in by_before.items())
    standing.refresh({row.tenant_id: _seen_at(row) for row in rows})
    return counted


def _part(row: Assignment, now: datetime) -> Counting:
    start = row.counted_to or row.assigned_at
    assert start is not None
    return Counting(row, start, max(start, min(row.held_until or now, now)), is_first=row.counted_to is None)


def _read_samples(parts: Sequence[Counting]) -> None:
    if not parts:
        return
    by_container = {part.row.container_ref: part for part in parts}
    since, until = min(part.start for part in parts) - SAMPLE_STANDS, max(part.end for part in parts)
    rows = ContainerUsage.objects.filter(container_id__in=list(by_container), at__gt=since, at__lte=until)
    for row in rows.order_by("at").iterator():
        by_container[row.container_id].samples.append(Sample(row.at, row.cpu_ns, row.memory_bytes))


def _use_of(part: Counting) -> dict[Key, Amounts]:
    """By day; also notes in the row how far its CPU time is counted."""
    used: dict[Key, Amounts] = defaultdict(Amounts)
    tenant_id = part.row.tenant_id
    for start, end in _days(part.start, part.end):
        seconds = (end - start).total_seconds()
        used[tenant_id, tenant_usage.day_of(start)] += Amounts(
            held_ms=round(seconds * 1000), memory_byte_s=round(_memory(part.samples, start, end) * seconds)
        )
    for at, cpu_ns in _cpu(part):
        used[tenant_id, tenant_usage.day_of(at)] += Amounts(cpu_ns=cpu_ns)
    return used


def _days(start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    """The time from ``start`` to ``end``, divided at each midnight of UTC."""
    while start < end:
        until = min(end, tenant_usage.midnight_after(start))
        yield start, until
        start = until


def _memory(samples: list[Sample], start: datetime, end: datetime) -> float:
    """The mean of the memory in use between two times; 0 if it was not measured."""
    first = bisect_right(samples, start, key=lambda sample: sample.at)
    within = samples[first : bisect_right(samples, end, key=lambda sample: sample.at)]
    if within:
        return sum(sample.memory_bytes for sample in within) / len(within)
    before = samples[first - 1] if first else None
    return before.memory_bytes if before and before.at > start - SAMPLE_STANDS else 0


def _cpu(part: Counting) -> Iterator[tuple[datetime, int]]:
    """What was used until each sample, since the one before. The last sample before the claim is the first's.

    The counter starts again if the engine starts the container again.
    """
    before = part.row.counted_cpu_ns
    for sample in part.samples:
        if sample.at > part.end or (sample.at <= part.start and not part.is_first):
            continue
        if before is not None and sample.at > part.start:
            yield sample.at, sample.cpu_ns - before if sample.cpu_ns >= before else sample.cpu_ns
        before = sample.cpu_ns
    part.row.counted_cpu_ns = before


def _store(before: datetime | None, parts: Sequence[Counting], used: dict[UUID, dict[Key, Amounts]]) -> int:
    """Add the use of claims that were counted to ``before``, unless another process has counted one of them since."""
    for part in parts:
        part.row.counted_to = part.end
        part.row.is_counted = part.row.held_until is not None and part.row.held_until <= part.end
    total: dict[Key, Amounts] = defaultdict(Amounts)
    for part in parts:
        for key, amounts in used[part.row.pk].items():
            total[key] += amounts
    with transaction.atomic():
        rows = Assignment.objects.filter(counted_to=before, is_counted=False)
        changed = rows.bulk_update([part.row for part in parts], ["counted_to", "counted_cpu_ns", "is_counted"])
        if changed == len(parts):
            tenant_usage.add(total)
            return changed
        transaction.set_rollback(True)
    return sum(_store(before, [part], used) for part in parts) if len(parts) > 1 else 0


def _seen_at(row: Assignment) -> datetime | None:
    return max(filter(None, (row.assigned_at, row.last_activity_at, row.held_until)), default=None)
