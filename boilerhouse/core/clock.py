"""The database's clock, which all machines share.

Times that one process writes and another compares (heartbeats, leases, deadlines, ages of rows) come from this clock.
The clocks of two machines are never compared. The database is queried rarely; in between, this host's monotonic clock
is used, which does not jump with the wall clock.
"""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime, timedelta

from django.db import DatabaseError, connection

ASK_AGAIN_S = 300
"""The interval without a heartbeat, which reads the clock more often."""
_ASK = {
    "postgresql": "SELECT clock_timestamp()",
    "sqlite": "SELECT strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now')",
}
_measured: tuple[float, datetime] | None = None
"""The same point in time by the monotonic clock and by the database's."""


def now() -> datetime:
    """The database's time, with a query only if the last one is too old."""
    if _measured is None:
        measure()
    elif time.monotonic() - _measured[0] > ASK_AGAIN_S:
        with contextlib.suppress(DatabaseError):  # the database is unavailable; the last reading is the best estimate
            measure()
    assert _measured
    at, database_time = _measured
    return database_time + timedelta(seconds=time.monotonic() - at)


def measure() -> None:
    """Read the database's clock. The error is at most half the duration of the query."""
    global _measured
    began = time.monotonic()
    with connection.cursor() as cursor:
        cursor.execute(_ASK[connection.vendor])
        (database_time,) = cursor.fetchone()
    if isinstance(database_time, str):
        database_time = datetime.fromisoformat(database_time)
    _measured = (began + time.monotonic()) / 2, database_time.astimezone(UTC)


def of_host(seconds: float) -> datetime:
    """The database's time when this host's wall clock was ``seconds`` (Unix time), as in file timestamps."""
    return now() - timedelta(seconds=time.time() - seconds)
