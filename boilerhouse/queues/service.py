"""Detects queues that are not served: workers record every few seconds that they serve a queue; a hung worker does
not."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.db.models import Min, Q
from django.db.models.functions import Now

from boilerhouse.core import clock, compiled
from boilerhouse.core.compiled import Compiled
from boilerhouse.core.events import emit, recording
from boilerhouse.core.models import Process, QueueHealth
from boilerhouse.process import processes

SILENT_AFTER = timedelta(seconds=10)
"""Workers record it every four seconds."""


def unserved_queues() -> dict[str, int]:
    """Queues that no worker has served for a while, although one is running → seconds since then."""
    now = clock.now()
    rows = list(QueueHealth.objects.filter(name__in=list(settings.QUEUES), served_at__lt=now - SILENT_AFTER))
    if not rows:
        return {}
    workers = Process.objects.filter(pk__in=processes.living(), kind=Process.Kind.WORKER)
    since = workers.aggregate(first=Min("started_at"))["first"]
    if since is not None and since > now - SILENT_AFTER:  # no worker was running, which is a different problem
        return {}
    return {row.name: round((now - row.served_at).total_seconds()) for row in rows}


@compiled.cached
def _any_noteworthy() -> Compiled:
    rows = QueueHealth.objects.filter(Q(served_at__lt=Now() - SILENT_AFTER) | Q(is_warned=True))
    return compiled.selection(rows.order_by().values_list("pk")[:1])


def watch_queues() -> int:
    """Emit a warning for each queue that is no longer served, and an event when it is served again. Returns how many
    changed."""
    if not _any_noteworthy().exists():
        return 0
    silent, changed = unserved_queues(), 0
    turned = [row for row in QueueHealth.objects.all() if row.is_warned != (row.name in silent)]
    if not turned:
        return 0
    with recording():
        for row in turned:
            is_silent = row.name in silent
            if not QueueHealth.objects.filter(pk=row.pk, is_warned=not is_silent).update(is_warned=is_silent):
                continue
            changed += 1
            if is_silent:
                detail = f"Queue {row.name} has not been served for {silent[row.name]} s."
                emit("pool.warning", queue=row.name, detail=detail)
            else:
                emit("pool.recovered", queue=row.name, detail=f"Queue {row.name} is served again.")
    return changed
