"""The listing: every object of a location's last completed save, by name and size.

The marker points to it. It is what an interrupted save is taken back to (hazard C1), and it is written whole under a
name of its own before the marker that points to it, so that there is never half of one.
"""

from __future__ import annotations

import gzip
import hashlib
import json

from syncing import errors
from syncing.locations import MARKER_ROOT
from syncing.sinks import RUN_DEADLINE_S, Sink


def write(sink: Sink, location: str, run_id: str, names: dict[str, int]) -> str:
    """Store the listing of a run; return its key, empty for an empty location."""
    if not names:
        return ""
    digest = hashlib.sha256(location.encode()).hexdigest()
    key = f"{MARKER_ROOT}/{digest}.{run_id}.names.gz"
    sink.put(key, gzip.compress(json.dumps(names, ensure_ascii=True).encode(), 6, mtime=0))
    return key


def read(sink: Sink, key: str) -> dict[str, int]:
    """The names and sizes behind a key that a marker holds. Raises Incomplete when it is gone."""
    if not key:
        return {}
    content = sink.get(key, RUN_DEADLINE_S)
    if content is None:
        raise errors.Incomplete(f"The listing {key} of the last save is missing.")
    found: dict[str, int] = json.loads(gzip.decompress(content))
    return found
