"""Metrics of containers and of the engine."""

from __future__ import annotations

from boilerhouse.telemetry.metering import FAST, counter, histogram

CONTAINER_STARTS = counter(
    "container_starts_total", "Containers that became idle or failed to start.", "pool", "result"
)
CONTAINER_START_SECONDS = histogram(
    "container_start_seconds",
    "Seconds from the decision to start a container until it is idle: the lag of refills.",
    "pool",
)
DOCKER_SECONDS = histogram(
    "docker_call_seconds", "Seconds that calls to the container engine took.", "call", buckets=(*FAST, 30, 60)
)
DOCKER_ERRORS = counter("docker_call_errors_total", "Calls that the engine refused or did not answer.", "call", "error")
IMAGE_PULLS = counter("image_pulls_total", "Ended image pulls, by outcome.", "result")
IMAGE_PULL_SECONDS = histogram(
    "image_pull_seconds", "Seconds that image pulls took.", buckets=(*FAST, 30, 60, 300, 1800)
)
DRIFT = counter("reconcile_drift_total", "Differences between rows, engine and disk.", "kind")
