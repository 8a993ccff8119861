"""The database's clock, by which all machines agree.

Whatever one process writes down and another judges (heartbeats, leases, deadlines, ages of rows) is measured by it;
two machines' own clocks are never compared. It is asked rarely and carried on by this host's monotonic clock, which no
step of the wall clock moves.
"""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime, timedelta

from django.db import DatabaseError, connection

ASK_AGAIN_S = 300
"""Without a heartbeat, which asks more often."""
_ASK = {
    "postgresql": "SELECT clock_timestamp()",
    "sqlite": "SELECT strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now')",
}
_measured: tuple[float, datetime] | None = None
"""A moment by the monotonic clock and by the database's."""


def now() -> datetime:
    """The database's time. A query only where it was not asked lately."""
    if _measured is None:
        measure()
    elif time.monotonic() - _measured[0] > ASK_AGAIN_S:
        with contextlib.suppress(DatabaseError):  # it is away: what it said last is still nearest to the truth
            measure()
    assert _measured
    at, said = _measured
    return said + timedelta(seconds=time.monotonic() - at)


def measure() -> None:
    """Ask the database anew; the answer is off by half of what asking took at most."""
    global _measured
    began = time.monotonic()
    with connection.cursor() as cursor:
        cursor.execute(_ASK[connection.vendor])
        (said,) = cursor.fetchone()
    if isinstance(said, str):
        said = datetime.fromisoformat(said)
    _measured = (began + time.monotonic()) / 2, said.astimezone(UTC)


def of_host(seconds: float) -> datetime:
    """The database's time when this host's wall clock said ``seconds`` (Unix time), as a file's times are."""
    return now() - timedelta(seconds=time.time() - seconds)
