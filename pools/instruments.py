"""What is counted of containers and of the engine."""

from __future__ import annotations

from boilerhouse.telemetry.metering import FAST, counter, histogram

CONTAINER_STARTS = counter("container_starts_total", "Containers that became idle, or did not.", "pool", "result")
CONTAINER_START_SECONDS = histogram(
    "container_start_seconds", "From the decision to have one more container to an idle one: the refill's lag.", "pool"
)
DOCKER_SECONDS = histogram("docker_call_seconds", "Calls of the Docker engine.", "call", buckets=(*FAST, 30, 60))
DOCKER_ERRORS = counter("docker_call_errors_total", "Calls that the engine failed or did not answer.", "call", "error")
IMAGE_PULLS = counter("image_pulls_total", "Pulls of images that ended, by how.", "result")
IMAGE_PULL_SECONDS = histogram("image_pull_seconds", "How long pulls took.", buckets=(*FAST, 30, 60, 300, 1800))
DRIFT = counter("reconcile_drift_total", "Differences between rows, engine and disk that were found.", "kind")
