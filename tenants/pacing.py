"""How often a key of role ``tenant`` may claim (promise P14, ADR 60).

Other keys act for many tenants, and have no such limit.
"""

from __future__ import annotations

import time

from django.conf import settings

from boilerhouse.web.throttling import Buckets
from tenants import errors

buckets = Buckets()
"""Of this web process, by the key's id."""


def check_new_claim(key: str) -> None:
    """Count one new claim. Raises TooManyClaims, which counts nothing."""
    rate, burst = settings.BOILERHOUSE_CLAIM_RATE_PER_TENANT, settings.BOILERHOUSE_CLAIM_BURST_PER_TENANT
    if rate and (wait_s := buckets.take(key, rate, burst, time.monotonic())):
        raise errors.TooManyClaims(wait_s)
