"""What is counted of claims and releases."""

from __future__ import annotations

from boilerhouse.telemetry.metering import FAST, counter, histogram

CLAIMS = counter(
    "claims_total", "New claims that ended: assigned, or the code of their error.", "pool", "source", "result"
)
CLAIM_SECONDS = histogram(
    "claim_seconds", "From a claim's acceptance until it was assigned.", "pool", "source", buckets=(*FAST, 30, 60)
)
CLAIM_PHASE_SECONDS = histogram("claim_phase_seconds", "A claim's parts.", "phase", buckets=(*FAST, 30, 60))
EXHAUSTED = counter("pool_exhausted_total", "Claims that found no idle container.", "pool")
RELEASES = counter("releases_total", "Releases that ended, or whose save failed.", "pool", "result")
RELEASE_SECONDS = histogram("release_seconds", "From a release's fence until the container was gone.", "pool")
