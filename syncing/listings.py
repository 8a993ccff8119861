"""The listing: every object of a location's last complete save, by name and size.

An interrupted save is undone to this state (hazards.md#c1). A short listing is part of the marker. A long one is a
separate object, written completely under a new name before the marker that refers to it, so it is never incomplete.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

from syncing import errors
from syncing.locations import MARKER_ROOT
from syncing.markers import Marker
from syncing.sinks import RUN_DEADLINE_S, Sink, sizes

INLINE_BYTES = 16_384
"""A claim reads the marker, so it must stay small; saves of few files avoid two round trips."""


def attach(sink: Sink, marker: Marker, run_id: str, names: dict[str, int]) -> Marker:
    """The marker with this listing, which is stored first if it is too long to be part of it."""
    text = json.dumps(names, ensure_ascii=True).encode()
    if len(text) <= INLINE_BYTES:
        return replace(marker, listing="", names=names)
    digest = hashlib.sha256(marker.location.encode()).hexdigest()
    key = f"{MARKER_ROOT}/{digest}.{run_id}.names.gz"
    sink.put(key, sizes.packed(text, 6, marker.location))
    return replace(marker, listing=key, names={})


def read(sink: Sink, marker: Marker) -> dict[str, int]:
    """The names and sizes of the last complete save. Raises Incomplete if they are missing or unreadable."""
    if not marker.listing:
        return {sink.listed(name): size for name, size in marker.names.items()}
    content = sink.get(marker.listing, RUN_DEADLINE_S)
    if content is None:
        raise errors.Incomplete(f"The listing {marker.listing} of the last save is missing.")
    try:
        listing: dict[str, int] = json.loads(sizes.unpacked(content, sizes.MOST_UNPACKED_BYTES))
    except ValueError as error:
        raise errors.Incomplete(f"The listing {marker.listing} cannot be read: {error}.") from error
    return {sink.listed(name): size for name, size in listing.items()}


def forget(sink: Sink, old: Marker, new: Marker) -> None:
    """Delete the object of a listing that no marker refers to any more."""
    if old.listing not in ("", new.listing):
        sink.delete(old.listing)
