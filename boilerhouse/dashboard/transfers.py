"""Which unfinished runs pages list one by one.

Most saves take less than a second. If each had a row for that long, the rows below would move all the time.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from syncing.models import SyncRun
from syncing.states import UNFINISHED

BRIEF = timedelta(seconds=2)


def lasting(runs: Any, now: datetime) -> Any:
    """Those of a query of unfinished runs that were queued at least two seconds before ``now``, oldest first."""
    return runs.filter(created_at__lte=now - BRIEF).order_by("created_at", "pk")


def is_lasting(run: SyncRun, now: datetime) -> bool:
    """The same for one run, whatever its state."""
    return run.state in UNFINISHED and run.created_at <= now - BRIEF
