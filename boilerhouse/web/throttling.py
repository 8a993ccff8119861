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
SYNC = 10
"""Requests that a sync counts as: approximately its cost for the machine (ADR 54)."""
BYTES_OF_ONE = 64 * 1024
"""A body counts as one more request per this many bytes, for the time to receive and read it."""


class Buckets:
    """A token bucket per name: ``rate`` tokens a second, at most ``burst`` at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str, rate: float, burst: float, now: float, count: int = 1) -> float:
        """Take this many tokens if there is at least one, the rest in advance; return 0, or the seconds until there is
        one."""
        with self._lock:
            level = self._level(name, rate, burst, now)
            wait = 0.0 if level >= 1 else (1 - level) / rate
            self._set(name, level if wait else level - count, now)
        return wait

    def charge(self, name: str, rate: float, burst: float, now: float, count: int) -> None:
        """Take this many tokens, in advance if there are none."""
        with self._lock:
            self._set(name, self._level(name, rate, burst, now) - count, now)

    def _level(self, name: str, rate: float, burst: float, now: float) -> float:
        level, at = self._levels.pop(name, (burst, now))
        return min(burst, level + (now - at) * rate)

    def _set(self, name: str, level: float, now: float) -> None:
        self._levels[name] = (level, now)
        if len(self._levels) > MAX_KEYS:
            self._levels.popitem(last=False)


@dataclass(frozen=True, slots=True)
class Pause:
    """A key that was told to try again later."""

    key_id: str
    until: float
    """By the monotonic clock."""


class Pauses:
    """Keys that were told to try again later, and until when: earlier requests are answered without a query."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: OrderedDict[str, Pause] = OrderedDict()

    def begin(self, authorization: str, pause: Pause) -> None:
        with self._lock:
            self._of[authorization] = pause
            if len(self._of) > MAX_KEYS:
                self._of.popitem(last=False)

    def of(self, authorization: str, now: float) -> Pause | None:
        """The key of a request with exactly this header."""
        pause = self._of.get(authorization)
        if pause is None or pause.until > now:
            return pause
        with self._lock:
            self._of.pop(authorization, None)
        return None


buckets, pauses = Buckets(), Pauses()


def must_wait(key: ApiKey, authorization: str, body_bytes: int = 0) -> int:
    """Count a request of this key with this header; return 0, or the seconds until it may try again."""
    rate, burst = _limits(key)
    if not rate:
        return 0
    now = time.monotonic()
    if wait := math.ceil(buckets.take(key.pk, rate, burst, now, 1 + body_bytes // BYTES_OF_ONE)):
        pauses.begin(authorization, Pause(key.pk, now + wait))
    return wait


def charge(key: ApiKey, requests: int) -> None:
    """Count the work that a request of a tenant's key has started as this many requests in total; other keys serve many
    tenants."""
    rate, burst = _limits(key)
    if rate and key.role == Role.TENANT:
        buckets.charge(key.pk, rate, burst, time.monotonic(), requests - 1)


def _limits(key: ApiKey) -> tuple[float, float]:
    """Requests per second, and burst."""
    rate, burst = settings.BOILERHOUSE_THROTTLE_RATE, settings.BOILERHOUSE_THROTTLE_BURST
    if key.role != Role.TENANT:
        return rate, burst
    own = settings.BOILERHOUSE_THROTTLE_RATE_PER_TENANT, settings.BOILERHOUSE_THROTTLE_BURST_PER_TENANT
    return min(rate, own[0]), min(burst, own[1])


class KeyThrottle(BaseThrottle):
    """``BOILERHOUSE_THROTTLE_RATE`` requests a second per key, fewer for a tenant's; 429 says when to try again."""

    def allow_request(self, request: Any, view: Any) -> bool:
        is_new = request.auth is not None and getattr(request._request, "resumed", None) is None
        self._wait = 0
        if is_new:
            self._wait = must_wait(request.auth, request.headers["Authorization"], len(request._request.body))
        return not self._wait

    def wait(self) -> float | None:
        return self._wait
