"""The event pump: notifies this process of commits by other processes.

SQLite: ``PRAGMA data_version`` changes with every commit of another connection. PostgreSQL: LISTEN. Subscribers are
called often, from the pump's thread, and must be quick; they read the database themselves.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable

import psycopg
import structlog
from django.db import connection

from boilerhouse.core.events import CHANNEL
from boilerhouse.telemetry.instruments import STEP_FAILURES

log = structlog.get_logger(__name__)

SQLITE_POLL_S = 0.025
SAFETY_POLL_S = 0.5


class Pump:
    """Calls every subscriber after each commit elsewhere, and at least every half second."""

    def __init__(self) -> None:
        self._subscribers: set[Callable[[], None]] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback`` on each change until the returned function is called."""
        with self._lock:
            self._subscribers.add(callback)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="pump", daemon=True)
                self._thread.start()
        return lambda: self._subscribers.discard(callback)

    def pulse(self) -> None:
        """Call every subscriber now: something that is in no row has changed."""
        for callback in list(self._subscribers):
            try:
                callback()
            except Exception as error:
                log.error("subscriber failed", error=type(error).__name__, detail=str(error)[:200])

    def _run(self) -> None:
        follow = self._follow_sqlite if connection.vendor == "sqlite" else self._follow_postgresql
        while True:
            try:
                follow()
            except Exception as error:  # everything that waits in this process depends on this thread
                STEP_FAILURES.labels("pump").inc()
                log.warning("event pump reconnects", error=type(error).__name__, detail=str(error)[:200])
            with contextlib.suppress(Exception):
                connection.close()
            self.pulse()
            time.sleep(1)

    def _follow_sqlite(self) -> None:
        with contextlib.closing(sqlite3.connect(connection.settings_dict["NAME"], timeout=5)) as reader:
            version_before, last = -1, time.monotonic()
            while True:
                version = reader.execute("PRAGMA data_version").fetchone()[0]
                if version != version_before or time.monotonic() - last > SAFETY_POLL_S:
                    version_before, last = version, time.monotonic()
                    self.pulse()
                time.sleep(SQLITE_POLL_S)

    def _follow_postgresql(self) -> None:
        parameters = connection.get_connection_params()
        allowed = {k: v for k, v in parameters.items() if k in {"dbname", "user", "password", "host", "port"}}
        with psycopg.connect(**allowed, autocommit=True, connect_timeout=5) as listener:
            listener.execute(f"LISTEN {CHANNEL}")
            while True:
                for _ in listener.notifies(timeout=SAFETY_POLL_S, stop_after=1):
                    pass
                self.pulse()


pump = Pump()
