"""Whether the queues are served: django-q2 can be wedged for good by a worker's death, and says nothing then.

``run_worker`` restarts a wedged cluster; this is how everybody else learns of it.
"""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings

from boilerhouse.core import canary, clock, processes
from boilerhouse.core.events import emit, recording
from boilerhouse.core.models import Process, QueueHealth

SILENT_AFTER = timedelta(seconds=10)
"""A canary is sent every four seconds."""


def silent_queues() -> dict[str, int]:
    """Queues that do not serve although a worker is free → seconds since they last did."""
    now = clock.now()
    workers = Process.objects.filter(pk__in=processes.living(), kind=Process.Kind.WORKER).order_by("-started_at")
    since = dict(workers.values_list("name", "started_at"))  # nobody served while nothing ran: that is no silence
    rows = QueueHealth.objects.filter(name__in=list(settings.QUEUES), served_at__lt=now - SILENT_AFTER)
    return {
        row.name: round((now - row.served_at).total_seconds())
        for row in rows
        if since.get(row.name, row.served_at) < now - SILENT_AFTER
        and not canary.is_saturated(row.name, int(settings.QUEUES[row.name]["workers"]))
    }


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
                detail = f"Queue {row.name} has not served for {silent[row.name]} s; its workers are being restarted."
                emit("pool.warning", queue=row.name, detail=detail)
            else:
                emit("pool.recovered", queue=row.name, detail=f"Queue {row.name} serves again.")
    return changed
