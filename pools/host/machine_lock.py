"""A lock between all processes of the deployment on this machine, also of nodes with other data directories.

Such nodes have only the database in common, so the lock is there. SQLite serves one node, whose file lock suffices.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection, transaction

from boilerhouse.process import processes
from pools.errors import HostNotReady

LOOK_S = 0.02


@contextmanager
def lock(what: str, within_s: float) -> Iterator[None]:
    """Hold the machine's lock of that name, on PostgreSQL in a transaction. Raises HostNotReady after ``within_s``."""
    if connection.vendor != "postgresql":
        yield
        return
    give_up = time.monotonic() + within_s
    with transaction.atomic():
        while not _take(what):
            if time.monotonic() >= give_up:
                raise HostNotReady(f"Another node on this machine has held the lock {what!r} for {within_s:.0f} s.")
            time.sleep(LOOK_S)
        yield


def _take(what: str) -> bool:
    """Whether this transaction has the lock; it does not wait for it, because only its end would stop that."""
    keys = [zlib.crc32(text.encode()) - (1 << 31) for text in (what, processes.boot_id())]
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s, %s)", keys)
        return bool(cursor.fetchone()[0])
