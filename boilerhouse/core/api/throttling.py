"""A token bucket per API key, in the memory of each web process."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from rest_framework.throttling import BaseThrottle

from boilerhouse.core.models import ApiKey, Role

MAX_KEYS = 10_000
BYTES_OF_ONE = 64 * 1024
"""A body counts as one more request for each of so many bytes: it takes their time to be received and read."""


class Buckets:
    """``rate`` tokens a second, at most ``burst`` at once, for each name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str, rate: float, burst: float, now: float, count: int = 1) -> float:
        """Take so many tokens if there is one, the others in advance; return 0, or the seconds until there is one."""
        with self._lock:
            level, at = self._levels.pop(name, (burst, now))
            level = min(burst, level + (now - at) * rate)
            wait = 0.0 if level >= 1 else (1 - level) / rate
            self._levels[name] = (level if wait else level - count, now)
            if len(self._levels) > MAX_KEYS:
                self._levels.popitem(last=False)
        return wait


@dataclass(frozen=True, slots=True)
class Pause:
    """A key was told to come again later."""

    key_id: str
    until: float
    """By the monotonic clock."""


class Pauses:
    """Who was told to come again later, and until when: whoever asks before that is answered without looking it up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: OrderedDict[str, Pause] = OrderedDict()

    def begin(self, authorization: str, pause: Pause) -> None:
        with self._lock:
            self._of[authorization] = pause
            if len(self._of) > MAX_KEYS:
                self._of.popitem(last=False)

    def of(self, authorization: str, now: float) -> Pause | None:
        """The one that a request with just this header comes in."""
        pause = self._of.get(authorization)
        if pause is None or pause.until > now:
            return pause
        with self._lock:
            self._of.pop(authorization, None)
        return None


buckets, pauses = Buckets(), Pauses()


def must_wait(key: ApiKey, authorization: str, body_bytes: int = 0) -> int:
    """Count a request of this key, with this header; return 0, or the seconds until it may come again."""
    rate, burst = settings.BOILERHOUSE_THROTTLE_RATE, settings.BOILERHOUSE_THROTTLE_BURST
    if not rate:
        return 0
    if key.role == Role.TENANT:
        rate = min(rate, settings.BOILERHOUSE_THROTTLE_RATE_PER_TENANT)
        burst = min(burst, settings.BOILERHOUSE_THROTTLE_BURST_PER_TENANT)
    now = time.monotonic()
    if wait := math.ceil(buckets.take(key.pk, rate, burst, now, 1 + body_bytes // BYTES_OF_ONE)):
        pauses.begin(authorization, Pause(key.pk, now + wait))
    return wait


class KeyThrottle(BaseThrottle):
    """``BOILERHOUSE_THROTTLE_RATE`` requests a second per key, fewer for a tenant's; 429 says when to come again."""

    def allow_request(self, request: Any, view: Any) -> bool:
        is_new = request.auth is not None and getattr(request._request, "resumed", None) is None
        self._wait = 0
        if is_new:
            self._wait = must_wait(request.auth, request.headers["Authorization"], len(request._request.body))
        return not self._wait

    def wait(self) -> float | None:
        return self._wait
