"""Records what the last complete save, or the claim's restore, saw of each file of a mapping.

A file in the container's own directory on the node: no tenant sees it, and it is deleted with the container. With it, a
save of a running container knows what has changed without reading any file (ADR 30). Without it, or if it does not
match the sink's current state, everything counts as changed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import structlog

from pools.volumes import Stamp
from syncing.models import SyncMapping
from syncing.sinks import Sink
from syncing.targets import TransferTarget

log = structlog.get_logger(__name__)


def store(
    target: TransferTarget, mapping: SyncMapping, sink: Sink, location: str, saved_at: str, stamps: dict[str, Stamp]
) -> None:
    """Record that the save or restore with the marker of ``saved_at`` has exactly the files with these stamps."""
    path = _path(target, mapping)
    draft = path.with_suffix(".draft")
    try:
        path.parent.mkdir(exist_ok=True, mode=0o700)
        with draft.open("w") as file:
            json.dump({"of": _about(target, mapping, sink, location, saved_at), "files": stamps}, file)
        draft.replace(path)
    except OSError as error:  # the save is complete; the next one treats everything as changed
        log.warning("record of the save not kept", error=error.strerror, path=str(path))


def load(
    target: TransferTarget, mapping: SyncMapping, sink: Sink, location: str, saved_at: str
) -> dict[str, Stamp] | None:
    """The record for the marker of ``saved_at``; None if that was not the last, or the spec has changed."""
    try:
        document = json.loads(_path(target, mapping).read_text())
        if document["of"] != _about(target, mapping, sink, location, saved_at):
            return None
        return {path: Stamp(*stamp) for path, stamp in document["files"].items()}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:  # a power failure before its content reached the disk
        log.warning("record of the last save is unreadable", mapping=mapping.pk, error=type(error).__name__)
        return None


def restored(staged: dict[str, Stamp], present: dict[str, Stamp], at_ns: int) -> dict[str, Stamp]:
    """The stamps of files that were moved in as staged, and that no process can have written to since.

    A rename changes the ctime, so the current one counts; everything else must be equal.
    """
    return {
        path: stamp
        for path, stamp in present.items()
        if path in staged and stamp[:3] == staged[path][:3] and stamp.is_settled(at_ns)
    }


def _path(target: TransferTarget, mapping: SyncMapping) -> Path:
    return target.node.volumes.home(target.container_id) / ".saved" / f"{mapping.pk}.json"


def _about(target: TransferTarget, mapping: SyncMapping, sink: Sink, location: str, saved_at: str) -> list[Any]:
    return [
        target.tenant_id, target.generation, sink.place_name, location, mapping.pattern, mapping.container_path,
        mapping.spec.version, saved_at, os.fspath(target.node.volumes.home(target.container_id)),
    ]  # fmt: skip
