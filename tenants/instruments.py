"""What is counted of claims and releases."""

from __future__ import annotations

from boilerhouse.telemetry.metering import FAST, counter, histogram

CLAIMS = counter(
    "claims_total", "Ended new claims, by outcome: assigned, or the error's code.", "pool", "source", "result"
)
CLAIM_SECONDS = histogram(
    "claim_seconds", "Seconds from accepting a claim until it is assigned.", "pool", "source", buckets=(*FAST, 30, 60)
)
CLAIM_PHASE_SECONDS = histogram(
    "claim_phase_seconds", "Seconds of each phase of a claim.", "phase", buckets=(*FAST, 30, 60)
)
EXHAUSTED = counter("pool_exhausted_total", "Claims that found no idle container.", "pool")
RELEASES = counter("releases_total", "Releases that ended or whose save failed.", "pool", "result")
RELEASE_SECONDS = histogram(
    "release_seconds", "Seconds from the start of a release until the container is gone.", "pool"
)
