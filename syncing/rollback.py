"""Undoes an interrupted save: afterwards the location has exactly its last complete save (P5, hazards.md#c1).

Each attempt of a save moves what it overwrites or deletes to its own backup directory, which the open marker names
before the first byte. The undo copies those backups, newest first, over the attempts' changes, and moves added files
away. It can itself be interrupted at any point and repeated.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import structlog

from boilerhouse.process import stalls
from syncing import backups, errors, listings
from syncing.locations import marker_key
from syncing.markers import Marker
from syncing.sinks import Sink

log = structlog.get_logger(__name__)

AT_ONCE = 16


def roll_back(sink: Sink, location: str, marker: Marker) -> Marker:
    """Undo the attempts of an open marker, close it, and return it. Raises SyncFailed; nothing is lost then."""
    expected = listings.read(sink, marker)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        # First remove added files: they may be in the way of a restored object of another type (hazards.md#b8).
        added = [name for name, _ in sink.names(location) if name not in expected]
        aside = backups.location_of(location, marker.run_id, 0)
        for _ in threads.map(lambda name: sink.move(f"{location}/{name}", f"{aside}/{name}"), added):
            stalls.step()
        for folder in {name.rpartition("/")[0] for name in added} & set(expected):
            sink.delete_all(f"{location}/{folder}")  # some keep an empty folder
        for attempt in reversed(marker.undo):
            backup = str(attempt["backup"])
            pairs = [(f"{backup}/{name}", f"{location}/{name}") for name, _ in sink.names(backup) if name in expected]
            for _ in threads.map(lambda pair: sink.copy(*pair), pairs):
                stalls.step()
    actual = dict(sink.names(location))
    if actual != expected:
        lacking = (
            sorted(set(expected) - set(actual))[:3] or sorted(n for n in expected if actual.get(n) != expected[n])[:3]
        )
        raise errors.Incomplete(f"An interrupted save of {location} cannot be undone: {', '.join(lacking)}.")
    closed = replace(marker, state="closed", undo=[])
    sink.put(marker_key(location), closed.dump())
    log.warning("interrupted save rolled back", location=location, attempts=len(marker.undo), added=len(added))
    return closed
