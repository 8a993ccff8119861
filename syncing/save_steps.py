"""The steps of every save: taking the census, opening the marker, and closing it when everything has arrived."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from django.conf import settings

from boilerhouse.core import clock, failpoints
from boilerhouse.core.events import emit, recording
from pools import volumes
from pools.file_names import plain, show
from syncing import backups, completeness, conflicts, errors, fit_check, listings, places, unhashed_objects
from syncing.attempts import Attempt
from syncing.mapping_saves import MappingSave
from syncing.marker_steps import open_marker, put_marker, savers
from syncing.markers import Manifest
from syncing.models import SavedState, SyncMapping
from syncing.states import Mode
from syncing.targets import planted

MAX_KEY_BYTES = 1024
"""The maximum length of a key in object stores; the longest key of a save is that of a backup."""
Binds = list[tuple[Path, str]]


@dataclass(frozen=True, slots=True)
class Sent:
    """What an attempt has transferred to the sink."""

    attempt: Attempt
    bytes: int
    deleted: int


def count(save: MappingSave, root: int, until: float = math.inf) -> volumes.Census:
    """The census before a save. Raises Unsaveable, TooLarge: then nothing has been sent; TimeoutError at ``until``."""
    mapping = save.mapping
    room = MAX_KEY_BYTES - len(f"{backups.location_of(save.location, str(save.run.pk), 99)}/".encode())
    max_entries, max_bytes = settings.BOILERHOUSE_MAX_SAVE_FILES, settings.BOILERHOUSE_MAX_SAVE_BYTES
    census = volumes.census(
        root,
        save.matches,
        settings.BOILERHOUSE_MAX_FILE_BYTES,
        max_path_bytes=room,
        max_entries=max_entries,
        until=until,
    )
    if census.is_cut:
        raise errors.TooLarge(f"{mapping.container_path} has more than {max_entries} files, links and directories.")
    if census.bytes > max_bytes:
        raise errors.TooLarge(f"{mapping.container_path} has {census.bytes} bytes; the limit is {max_bytes}.")
    if census.unsaveable:
        named = "; ".join(f"{show(path)}: {why}" for path, why in census.unsaveable[:5])
        raise errors.Unsaveable(f"{len(census.unsaveable)} files cannot be saved: {named}")
    return census


def begin_attempt(save: MappingSave, local: volumes.Census, paths: Collection[str]) -> tuple[Attempt, Binds]:
    """Open the marker and move obstacles to sending the files ``paths``; also returns rclone's binds."""
    fit_check.check(save.target, save.mapping, local, {})
    doubtful = savers.submit(save.sink.unhashed, save.location)
    attempt = open_marker(save)
    failpoints.reach("save.marker-open")
    if not save.deletes:
        fit_check.check(save.target, save.mapping, local, attempt.present())
    conflicts.clear(attempt, local)
    unhashed_objects.clear(attempt, doubtful.result(), paths)
    return attempt, save.sink.binds([save.location, attempt.backup], save.target.owner.uid)


def check_in_place(mapping: SyncMapping, volume: Path, relative: PurePosixPath, root: int) -> None:
    with planted(mapping):
        again = volumes.descend(volume, relative)
    moved = os.fstat(again).st_ino != os.fstat(root).st_ino
    os.close(again)
    if moved:
        raise replaced(mapping)


def replaced(mapping: SyncMapping) -> errors.PathPlanted:
    return errors.PathPlanted(f"{mapping.container_path} was replaced while it was being saved.")


def complete(save: MappingSave, local: volumes.Census, sent: Sent, *, torn: int = 0, **details: Any) -> str:
    """Check the sink's content, close the marker and record the save; returns its time."""
    run, mapping, sink, attempt = save.run, save.mapping, save.sink, sent.attempt
    marker = attempt.marker
    futures = [savers.submit(backups.stored_at, sink, str(backup["backup"])) for backup in marker.undo]
    names, matches = attempt.names(), save.matches
    stored = [answer.result() for answer in futures]
    manifest = replace(
        _manifest(names, matches, local, marker.manifest, exact=save.deletes),
        way=volumes.modes_on_way(*save.place),
    )
    completeness.check(save.location, local.sizes(), names, matches, exact=save.deletes)
    run.skipped = [*run.skipped, *(f"{mapping.container_path}/{_text(path)}" for path in local.skipped)][:100]
    if mapping.mode == Mode.SYNC and not save.deletes:
        run.deletes = "withheld"
    run.deleted += sent.deleted
    closed = replace(marker, state="closed", saved_at=_now(), manifest=manifest, undo=[])
    closed = listings.attach(sink, closed, str(run.pk), names)
    content = closed.dump()
    put_marker(save, content, attempt.tag)
    failpoints.reach("save.marker-closed")
    listings.forget(sink, marker, closed)
    with recording():
        _record(save, manifest, len(content), [backup for backup in stored if backup])
        if save.deletes and local.files == 0 and marker.manifest.files:
            _warn_emptied(save, marker.manifest.files)
    more = {"changedDuring": torn} if torn else {}
    save.add_step(local.files, local.bytes, transferred=sent.bytes, **more, **details)
    return closed.saved_at


def _record(save: MappingSave, manifest: Manifest, marker_bytes: int, stored: list[backups.StoredFiles]) -> None:
    """Record what the sink now has of the tenant, and the backups of this save."""
    mapping, target, place = save.mapping, save.target, save.sink.place_name
    saved = SavedState.objects.current().filter(tenant_id=target.tenant_id, location=save.location)
    if aliases := places.names_of(mapping.spec) - {place}:
        saved.filter(place__in=aliases).delete()
    saved.update_or_create(
        tenant_id=target.tenant_id,
        place=place,
        location=save.location,
        defaults={
            "mapping": mapping,
            "container_path": mapping.container_path,
            "pool_id": target.pool_id,
            "generation": target.generation,
            "run_id": save.run.pk,
            "files": manifest.files,
            "bytes": manifest.bytes,
            "marker_bytes": marker_bytes,
            "saved_at": clock.now(),
        },
    )
    backups.record(target.tenant_id, mapping, place, save.location, stored)


def _warn_emptied(save: MappingSave, files: int) -> None:
    mapping, target = save.mapping, save.target
    emit(
        "pool.warning", pool_id=target.pool_id, tenant_id=target.tenant_id, container_id=target.container_id,
        code="emptied", specId=mapping.spec_id,
        detail=f"The tenant has emptied {mapping.container_path}; its {files} files are kept as a backup.",
    )  # fmt: skip


def _manifest(
    names: dict[str, int],
    matches: Callable[[str], bool] | None,
    local: volumes.Census,
    last: Manifest,
    *,
    exact: bool,
) -> Manifest:
    """What a restore would now produce: totals from the sink's listing, everything else from the census.

    If nothing was deleted at the sink, files of earlier saves are still part of it.
    """
    sizes = {name: size for name, size in names.items() if matches is None or matches(name)}
    shape, far = conflicts.Shape(local), set() if exact else set(map(plain, names))

    def carried(path: str) -> bool:
        return not (exact or shape.holds(path) or shape.excludes(path))

    links = {p: target for p, target in last.links.items() if carried(p)} | local.links
    empty_dirs = sorted({p for p in last.empty_dirs if carried(p)} | set(local.empty_dirs))
    return Manifest(
        files=len(sizes),
        bytes=sum(sizes.values()),
        modes={p: mode for p, mode in last.modes.items() if carried(p)} | local.modes,
        links=links,
        empty_dirs=empty_dirs,
        mtimes={p: at for p, at in last.mtimes.items() if carried(p) and plain(p) in far}
        | {p: stamp.mtime_ns for p, stamp in local.stamps.items()},
        names=sorted({p for p in last.names if carried(p)} | set(local.names)),
        sparse=sorted({p for p in last.sparse if carried(p)} | set(local.sparse)),
        room=fit_check.room_of(sizes, links, empty_dirs),
        is_exact=True,
    )


def _text(path: str) -> str:
    """The path in a form that can be stored and sent, whatever bytes it has."""
    return path.encode("utf-8", "backslashreplace").decode()


def _now() -> str:
    return clock.now().isoformat().replace("+00:00", "Z")
