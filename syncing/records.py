"""What the last completed save, or the claim's restore, saw of each file of a mapping.

A file in the container's own directory on the node: no tenant sees it, and it goes with the container. With it a save
of a running container knows what has changed without reading anything (ADR 30). Without it, or where it is about
anything else than what the sink holds now, everything counts as changed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import structlog

from pools import volumes
from pools.volumes import Stamp
from syncing.models import SyncMapping
from syncing.sinks import Sink
from syncing.sites import Site

log = structlog.get_logger(__name__)


def store(site: Site, mapping: SyncMapping, sink: Sink, location: str, saved_at: str, stamps: dict[str, Stamp]) -> None:
    """Note that the save or restore whose marker says ``saved_at`` has exactly the files that have these stamps."""
    path = _path(site, mapping)
    draft = path.with_suffix(".draft")
    try:
        path.parent.mkdir(exist_ok=True, mode=0o700)
        with draft.open("w") as file:
            json.dump({"of": _about(site, mapping, sink, location, saved_at), "files": stamps}, file)
        draft.replace(path)
    except OSError as error:  # the save is done; the next one takes everything for changed
        log.warning("what the save saw cannot be kept", error=error.strerror, path=str(path))


def load(site: Site, mapping: SyncMapping, sink: Sink, location: str, saved_at: str) -> dict[str, Stamp] | None:
    """What was stored for the marker that says ``saved_at``; None if that was not the last, or the spec has changed."""
    try:
        found = json.loads(_path(site, mapping).read_text())
        if found["of"] != _about(site, mapping, sink, location, saved_at):
            return None
        return {path: Stamp(*stamp) for path, stamp in found["files"].items()}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:  # a power cut before its content reached the disk
        log.warning("record of the last save is unreadable", mapping=mapping.pk, error=type(error).__name__)
        return None


def restored(staged: dict[str, Stamp], present: dict[str, Stamp], at_ns: int) -> dict[str, Stamp]:
    """The stamps of files that were moved in as they were staged, and that nobody can have written to since.

    A rename changes the ctime, so it is the present one that counts; the rest must be as it was.
    """
    return {
        path: stamp
        for path, stamp in present.items()
        if path in staged and stamp[:3] == staged[path][:3] and stamp.is_settled(at_ns)
    }


def _path(site: Site, mapping: SyncMapping) -> Path:
    return volumes.home(site.container_id) / ".saved" / f"{mapping.pk}.json"


def _about(site: Site, mapping: SyncMapping, sink: Sink, location: str, saved_at: str) -> list[Any]:
    return [
        site.tenant_id, site.generation, sink.place_name, location, mapping.pattern, mapping.container_path,
        mapping.spec.version, saved_at, os.fspath(volumes.home(site.container_id)),
    ]  # fmt: skip
