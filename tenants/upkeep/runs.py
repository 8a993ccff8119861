"""Steps over sync runs."""

from __future__ import annotations

from boilerhouse.process import processes
from syncing.models import SyncRun


def bury_dead_runs() -> int:
    """Mark runs of dead processes as interrupted; their claim or release decides what follows."""
    running = list(SyncRun.objects.running())
    if not running:
        return 0
    living = processes.living()
    dead = [run.pk for run in running if run.owner not in living]
    return SyncRun.objects.filter(pk__in=dead).bury()
