"""The marker: one object per location that says what the last completed save there was.

It lies outside all locations. It also holds what object storage cannot: modes, links, empty directories. A save
writes it ``open`` before the first byte and ``closed`` after the last; ``undo`` names the attempts in between.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from syncing.sinks import sizes

FORMAT = 1
PLAIN_BYTES = 65_536
"""A longer one is compressed: it names every file."""
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a restore must yield."""

    files: int = 0
    bytes: int = 0
    modes: dict[str, int] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    empty_dirs: list[str] = field(default_factory=list)
    mtimes: dict[str, int] = field(default_factory=dict)
    """Path → modification time in ns; of every file that is known of."""
    names: list[str] = field(default_factory=list)
    way: list[int] = field(default_factory=list)
    """Modes of the directories that lead to the mapping's, from its volume's root on, and last its own."""
    sparse: list[str] = field(default_factory=list)
    """Files that had holes."""
    room: int = 0
    """What a restore takes of a disk, in bytes; 0 in markers of older versions."""
    is_exact: bool = False
    """Whether each file of ``mtimes`` must be there; not in markers of older versions."""

    @property
    def is_empty(self) -> bool:
        return not (self.files or self.links or self.empty_dirs)


@dataclass(frozen=True, slots=True)
class Marker:
    tenant_id: str
    deployment: str
    location: str
    generation: int
    run_id: str
    state: str
    """``open`` while a save is under way, ``closed`` when it completed."""
    saved_at: str
    manifest: Manifest
    """Of the last *completed* save."""
    undo: list[dict[str, Any]] = field(default_factory=list)
    """Attempts to take back, newest last: ``{runId, attempt, backup}``."""
    listing: str = ""
    """Key of the listing of the last completed save; empty when ``names`` is that listing."""
    names: dict[str, int] = field(default_factory=dict)
    """Name and size of every object of the last completed save, where they are few."""
    format: int = FORMAT

    def dump(self) -> bytes:
        """Raises Oversized where ``load``, or who reads it before, would not take it."""
        content = json.dumps(asdict(self)).encode()
        if len(content) <= PLAIN_BYTES:
            return content
        return sizes.packed(content, 1, self.location)

    @classmethod
    def load(cls, content: bytes, most: int = sizes.MOST_UNPACKED_BYTES) -> Self:
        """Raises ValueError for what is not a marker of a known format; Oversized where it is longer than ``most``."""
        if content.startswith(_GZIP):
            content = sizes.unpacked(content, most)
        data = json.loads(content)
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError("marker of an unknown format")
        try:
            return cls(**{**data, "manifest": Manifest(**data["manifest"])})
        except (KeyError, TypeError) as error:
            raise ValueError("marker of an unknown shape") from error
