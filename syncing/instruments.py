"""What is counted of sync runs."""

from __future__ import annotations

from boilerhouse.core.metering import counter, histogram

SYNC_RUNS = counter("sync_runs_total", "Sync runs that ended.", "pool", "direction", "trigger", "result")
SYNC_SECONDS = histogram("sync_run_seconds", "From a run's start to its end.", "direction", "trigger")
SYNC_BYTES = counter("sync_bytes_total", "Bytes that runs transferred.", "direction")
