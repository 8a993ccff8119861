"""Metrics of notifications."""

from __future__ import annotations

from boilerhouse.telemetry.metering import counter, histogram

ATTEMPTS = counter("notification_attempts_total", "Attempts to send a notification.", "type", "result")
ATTEMPT_SECONDS = histogram("notification_attempt_seconds", "Seconds that an attempt took.", "type")
