"""The marker: one object per location that describes the last complete save there.

It is outside all locations. It also contains what object storage lacks: modes, links, empty directories. A save writes
it as ``open`` before the first byte and as ``closed`` after the last; ``undo`` lists the attempts in between.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from syncing.sinks import sizes

FORMAT = 1
PLAIN_BYTES = 65_536
"""A longer one is compressed, because it names every file."""
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a restore must produce."""

    files: int = 0
    bytes: int = 0
    modes: dict[str, int] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    empty_dirs: list[str] = field(default_factory=list)
    mtimes: dict[str, int] = field(default_factory=dict)
    """Path → modification time in ns, of every known file."""
    names: list[str] = field(default_factory=list)
    way: list[int] = field(default_factory=list)
    """Modes of the directories from the volume's root to the mapping's, that one last."""
    sparse: list[str] = field(default_factory=list)
    """Sparse files."""
    room: int = 0
    """The disk use of a restore, in bytes; 0 in markers of older versions."""
    is_exact: bool = False
    """Whether each file of ``mtimes`` must exist; not in markers of older versions."""

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
    """``open`` during a save, ``closed`` when it has completed."""
    saved_at: str
    manifest: Manifest
    """Of the last *complete* save."""
    undo: list[dict[str, Any]] = field(default_factory=list)
    """Attempts to undo, newest last: ``{runId, attempt, backup}``."""
    listing: str = ""
    """Key of the listing of the last complete save; empty if ``names`` is that listing."""
    names: dict[str, int] = field(default_factory=dict)
    """Name and size of every object of the last complete save, if they are few."""
    format: int = FORMAT

    def dump(self) -> bytes:
        """Raises Oversized if ``load`` could not read it."""
        content = json.dumps(asdict(self)).encode()
        if len(content) <= PLAIN_BYTES:
            return content
        return sizes.packed(content, 1, self.location)

    @classmethod
    def load(cls, content: bytes, most: int = sizes.MOST_UNPACKED_BYTES) -> Self:
        """Raises ValueError if it is not a marker of a known format; Oversized if it is longer than ``most``."""
        if content.startswith(_GZIP):
            content = sizes.unpacked(content, most)
        data = json.loads(content)
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError("marker of an unknown format")
        try:
            return cls(**{**data, "manifest": Manifest(**data["manifest"])})
        except (KeyError, TypeError) as error:
            raise ValueError("marker of an unknown shape") from error
