"""The engine's messages during a pull, combined into one progress; and its errors.

An error comes inside a response with status 200, so the messages must be read to their end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pools.runtime.base import PullProgress

_HERE = ("Already exists", "Pull complete", "Exists")
_WAITS = ("Pulling fs layer", "Waiting")
_ARRIVED = ("Verifying Checksum", "Download complete", "Extracting", *_HERE)


def error_of(line: dict[str, Any]) -> str:
    """The engine's error in a message of a pull or a build; empty if there is none.

    ``error`` alone is what engines before API 1.48 always sent, ``errorDetail`` is what later ones keep.
    """
    return str((line.get("errorDetail") or {}).get("message") or line.get("error") or "")


@dataclass
class _Layer:
    status: str = ""
    bytes: int = 0
    size: int | None = None
    is_known: bool = False
    """Whether it was on this machine before."""


@dataclass
class Layers:
    """All layers of one pull; ``hear`` processes a message and returns whether there was progress."""

    digest: str = ""
    _layers: dict[str, _Layer] = field(default_factory=dict)

    def hear(self, line: dict[str, Any]) -> bool:
        status, name = str(line.get("status", "")), str(line.get("id", ""))
        if status.startswith("Digest: "):
            self.digest = status.removeprefix("Digest: ")
        if not name or status.startswith("Pulling from"):
            return bool(status)
        layer = self._layers.setdefault(name, _Layer())
        before = (layer.status, layer.bytes, str(line.get("progressDetail")))
        detail = line.get("progressDetail") or {}
        if status == "Downloading" and "total" in detail:
            layer.bytes, layer.size = int(detail.get("current", 0)), int(detail["total"])
        elif status.startswith(_ARRIVED) and layer.size is not None:
            layer.bytes = layer.size
        layer.is_known = layer.is_known or status == "Already exists"
        layer.status = status
        return before != (layer.status, layer.bytes, str(detail))

    @property
    def progress(self) -> PullProgress:
        pending = [layer for layer in self._layers.values() if not layer.is_known]
        sizes = [layer.size for layer in pending if layer.size]
        unknown = sum(layer.size is None and not layer.status.startswith(_ARRIVED) for layer in pending)
        arrived = sum(layer.status.startswith(_ARRIVED) for layer in pending)
        finished = sum(layer.status.startswith(_HERE) for layer in self._layers.values())
        missing = [layer for layer in pending if not layer.status.startswith(_ARRIVED)]
        return PullProgress(
            bytes=sum(layer.bytes for layer in pending),
            known_bytes=sum(sizes),
            estimated_bytes=sum(sizes) + (unknown * sum(sizes) // len(sizes) if sizes else 0),
            layers=len(self._layers),
            layers_done=finished,
            is_size_known=bool(sizes) and not unknown,
            is_extracting=bool(pending) and arrived == len(pending),
            is_in_line=bool(missing) and all(layer.status.startswith(_WAITS) for layer in missing),
            digest=self.digest,
        )
