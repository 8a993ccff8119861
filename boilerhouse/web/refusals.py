"""When a refusal is answered: at once, or late to whoever is refused again and again (promise P14).

A client that asks again as soon as it is refused keeps a web process busy with refusals alone. So of each key, and of
each address that shows no right one, a few refusals a second are answered at once, and all others after a moment in
which they hold nothing but their connection: with N connections a client gets N of them a second. Where too many wait
already, a refusal is answered at once, and its connection ends.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from boilerhouse.telemetry.instruments import REFUSALS
from boilerhouse.web import connections
from boilerhouse.web.throttling import Buckets
from boilerhouse.web.waiting_line import Line

AT_ONCE_OF_KEY, AT_ONCE_OF_ADDRESS = (10, 20), (50, 100)
"""Refusals a second, and in a row. Many clients may be at one address, and one of a stranger costs no look-up."""
LATE_S = 1.0
MOST_LATE, MOST_LATE_OF_ONE = 1000, 100


_at_once = Buckets()
_late = Line(MOST_LATE, MOST_LATE_OF_ONE)


@dataclass(frozen=True, slots=True)
class Refused:
    """Whom refusals count for."""

    name: str
    at_once: tuple[int, int]


def key(key_id: object) -> Refused:
    return Refused(f"key {key_id}", AT_ONCE_OF_KEY)


def address(scope: dict[str, Any]) -> Refused:
    return Refused(f"address {connections.address_of(scope)}", AT_ONCE_OF_ADDRESS)


async def moment(of: Refused, at_most_s: float = LATE_S) -> bool:
    """Return when the next refusal of these is to be answered; whether their connection may stay open then.

    Called in the event loop only.
    """
    if not _at_once.take(of.name, *of.at_once, time.monotonic()):
        REFUSALS.labels("at_once").inc()
        return True
    with _late.place(of.name) as has_place:
        REFUSALS.labels("late" if has_place else "closed").inc()
        if has_place:
            await asyncio.sleep(min(LATE_S, at_most_s))
        return has_place
