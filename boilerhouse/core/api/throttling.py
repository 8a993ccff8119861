"""A token bucket per API key, in the memory of each web process."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from typing import Any

from django.conf import settings
from rest_framework.throttling import BaseThrottle

from boilerhouse.core.models import ApiKey, Role

MAX_KEYS = 10_000


class Buckets:
    """``rate`` tokens a second, at most ``burst`` at once, for each name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str, rate: float, burst: float, now: float) -> float:
        """Take one token; return 0, or the seconds until there is one."""
        with self._lock:
            level, at = self._levels.pop(name, (burst, now))
            level = min(burst, level + (now - at) * rate)
            wait = 0.0 if level >= 1 else (1 - level) / rate
            self._levels[name] = (level if wait else level - 1, now)
            if len(self._levels) > MAX_KEYS:
                self._levels.popitem(last=False)
        return wait


class Pauses:
    """Who was told to come again later, and until when: whoever asks before that is answered without looking it up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until: OrderedDict[str, float] = OrderedDict()

    def begin(self, authorization: str, until: float) -> None:
        with self._lock:
            self._until[authorization] = until
            if len(self._until) > MAX_KEYS:
                self._until.popitem(last=False)

    def left(self, authorization: str, now: float) -> float:
        """Seconds until a request with just this header is looked at again."""
        until = self._until.get(authorization)
        if until is None:
            return 0.0
        if until <= now:
            with self._lock:
                self._until.pop(authorization, None)
        return max(0.0, until - now)


buckets, pauses = Buckets(), Pauses()


def must_wait(key: ApiKey) -> float:
    """Count a request of this key; return 0, or the seconds until it may come again."""
    rate, burst = settings.BOILERHOUSE_THROTTLE_RATE, settings.BOILERHOUSE_THROTTLE_BURST
    if not rate:
        return 0.0
    if key.role == Role.TENANT:
        rate = min(rate, settings.BOILERHOUSE_THROTTLE_RATE_PER_TENANT)
        burst = min(burst, settings.BOILERHOUSE_THROTTLE_BURST_PER_TENANT)
    return buckets.take(key.pk, rate, burst, time.monotonic())


class KeyThrottle(BaseThrottle):
    """``BOILERHOUSE_THROTTLE_RATE`` requests a second per key, fewer for a tenant's; 429 says when to come again."""

    def allow_request(self, request: Any, view: Any) -> bool:
        is_new = request.auth is not None and getattr(request._request, "resumed", None) is None
        self._wait = must_wait(request.auth) if is_new else 0.0
        if self._wait:
            pauses.begin(request.headers["Authorization"], time.monotonic() + math.ceil(self._wait))
        return not self._wait

    def wait(self) -> float | None:
        return math.ceil(self._wait)
