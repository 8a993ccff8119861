"""Metrics of sync runs."""

from __future__ import annotations

from boilerhouse.telemetry.metering import counter, histogram

SYNC_RUNS = counter("sync_runs_total", "Ended sync runs.", "pool", "direction", "trigger", "result")
SYNC_SECONDS = histogram("sync_run_seconds", "Seconds from a run's start to its end.", "direction", "trigger")
SYNC_BYTES = counter("sync_bytes_total", "Bytes that runs transferred.", "direction")
FREEZE_SECONDS = histogram(
    "freeze_seconds", "Seconds that containers were frozen for saves.",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0),
)  # fmt: skip
