"""Paces refusals: they are answered immediately, or late for a client that is refused repeatedly (promise P14).

A client that repeats a refused request at once could keep a web process busy with refusals. So for each key, and each
address without a valid one, a few refusals per second are answered immediately, and the rest after a delay in which
they use nothing but their connection: with N connections, a client gets N of them per second. If too many are waiting,
a refusal is answered immediately and its connection closed.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from boilerhouse.telemetry.instruments import REFUSALS
from boilerhouse.web import connections
from boilerhouse.web.throttling import Buckets
from boilerhouse.web.wait_slots import WaitSlots

AT_ONCE_OF_KEY, AT_ONCE_OF_ADDRESS = (10, 20), (50, 100)
"""Refusals per second, and burst. An address may have many clients, and an unauthenticated refusal needs no query."""
LATE_S = 1.0
MOST_LATE, MOST_LATE_OF_ONE = 1000, 100


_at_once = Buckets()
_late = WaitSlots(MOST_LATE, MOST_LATE_OF_ONE)


@dataclass(frozen=True, slots=True)
class Refused:
    """The client that refusals count for."""

    name: str
    at_once: tuple[int, int]


def key(key_id: object) -> Refused:
    return Refused(f"key {key_id}", AT_ONCE_OF_KEY)


def address(scope: dict[str, Any]) -> Refused:
    return Refused(f"address {connections.address_of(scope)}", AT_ONCE_OF_ADDRESS)


async def moment(of: Refused, at_most_s: float = LATE_S) -> bool:
    """Return when the client's next refusal is to be answered; returns whether its connection may stay open.

    Call it only in the event loop.
    """
    if not _at_once.take(of.name, *of.at_once, time.monotonic()):
        REFUSALS.labels("at_once").inc()
        return True
    with _late.place(of.name) as has_place:
        REFUSALS.labels("late" if has_place else "closed").inc()
        if has_place:
            await asyncio.sleep(min(LATE_S, at_most_s))
        return has_place
