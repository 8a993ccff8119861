"""Whether the queues are served: workers write it down every few seconds, and a worker that hangs does not."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.db.models import Min

from boilerhouse.core import clock
from boilerhouse.core.events import emit, recording
from boilerhouse.core.models import Process, QueueHealth
from boilerhouse.process import processes

SILENT_AFTER = timedelta(seconds=10)
"""A worker writes it down every four seconds."""


def silent_queues() -> dict[str, int]:
    """Queues that no worker has served for a while, although one is running → seconds since then."""
    now = clock.now()
    workers = Process.objects.filter(pk__in=processes.living(), kind=Process.Kind.WORKER)
    since = workers.aggregate(first=Min("started_at"))["first"]
    if since is not None and since > now - SILENT_AFTER:  # nobody served while nothing ran: that is no silence
        return {}
    rows = QueueHealth.objects.filter(name__in=list(settings.QUEUES), served_at__lt=now - SILENT_AFTER)
    return {row.name: round((now - row.served_at).total_seconds()) for row in rows}


def watch_queues() -> int:
    """Warn once of each queue that stopped serving, and say when it serves again; return how many changed."""
    silent, changed = silent_queues(), 0
    with recording():
        for row in QueueHealth.objects.all():
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
