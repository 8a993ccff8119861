"""Restores a backup's files at the sink, while no container has the tenant's state.

It is a save like any other: the marker is open meanwhile, replaced files go to a separate backup, and a restore that
finds it unfinished undoes it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from boilerhouse.core import failpoints
from boilerhouse.core.deployment import deployment_id
from boilerhouse.process import stalls
from pools.volumes import Census, Stamp
from syncing import backups, conflicts, errors, fit_check, listings, patterns, places, rollback
from syncing.attempts import Attempt
from syncing.locations import marker_key
from syncing.markers import Manifest, Marker
from syncing.models import Backup, SavedState, SyncMapping, SyncRun
from syncing.sinks import RUN_DEADLINE_S, Sink

AT_ONCE = 16


def restore(run: SyncRun, backup: Backup, keep_going: Callable[[], bool]) -> tuple[int, int]:
    """Copy the backup's files to their location; return how many files and bytes.

    Raises SyncFailed, StateMoved if the spec now saves elsewhere. After an error, the next restore undoes it.
    """
    with stalls.while_going(keep_going, errors.TransferCancelled):
        return _put_back(run, backup, keep_going)


def _put_back(run: SyncRun, backup: Backup, keep_going: Callable[[], bool]) -> tuple[int, int]:
    mapping, sink = _mapping_of(backup), places.sink_of(backup.spec)
    location = backup.location
    content = sink.get(marker_key(location), RUN_DEADLINE_S)
    if content is None:
        raise errors.StateMissing(f"No record says what was last saved at {location}.")
    marker = Marker.load(content)
    if marker.state == "open":
        marker = rollback.roll_back(sink, location, marker)
    files = dict(sink.names(backup.backup))
    if not files:
        raise errors.StateMissing("The backup is no longer at the sink.")
    aside = backups.location_of(location, str(run.pk), 1)
    opened = replace(
        marker,
        deployment=deployment_id(),
        generation=run.generation,
        run_id=str(run.pk),
        state="open",
        undo=[{"runId": str(run.pk), "attempt": 1, "backup": aside}],
    )
    sink.put(marker_key(location), opened.dump())
    failpoints.reach("backup.marker-open")
    shape, attempt = Census(stamps=dict.fromkeys(files, Stamp(0, 0, 0, 0))), Attempt(sink, location, opened)
    conflicts.clear(attempt, shape)
    present = set(attempt.names())

    def copy(name: str) -> None:
        if not keep_going():
            raise errors.TransferCancelled
        if name in present:
            sink.copy(f"{location}/{name}", f"{aside}/{name}")
        sink.copy(f"{backup.backup}/{name}", f"{location}/{name}")

    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(copy, files))
    failpoints.reach("backup.copied")
    names = attempt.names()
    closed = replace(
        opened,
        state="closed",
        saved_at=run.created_at.isoformat().replace("+00:00", "Z"),
        undo=[],
        manifest=_manifest(names, mapping, shape, marker.manifest),
    )
    closed = listings.attach(sink, closed, str(run.pk), names)
    sink.put(marker_key(location), closed.dump())
    listings.forget(sink, marker, closed)
    _record(run, backup, mapping, sink, closed, aside)
    return len(files), sum(files.values())


def _mapping_of(backup: Backup) -> SyncMapping:
    names = places.names_of(backup.spec)
    for mapping in SyncMapping.objects.select_related("spec").filter(spec=backup.spec_id):
        same = mapping.location(backup.tenant_id) == backup.location
        if same and mapping.uploads and backup.place in names:
            return mapping
    raise errors.StateMoved(f"Sync spec {backup.spec_id} no longer saves {backup.container_path} to {backup.location}.")


def _manifest(names: dict[str, int], mapping: SyncMapping, back: Census, last: Manifest) -> Manifest:
    """What a restore will produce: modes and times of the restored files are unknown."""
    matches, shape = patterns.matcher(mapping.pattern), conflicts.Shape(back)
    sizes = {name: size for name, size in names.items() if matches is None or matches(name)}

    def stays(path: str) -> bool:
        return not (shape.is_leaf(path) or shape.excludes(path))

    links = {path: target for path, target in last.links.items() if stays(path)}
    empty_dirs = [path for path in last.empty_dirs if stays(path)]
    return Manifest(
        files=len(sizes),
        bytes=sum(sizes.values()),
        modes={path: mode for path, mode in last.modes.items() if stays(path) or shape.is_folder(path)},
        links=links,
        empty_dirs=empty_dirs,
        mtimes={path: at for path, at in last.mtimes.items() if stays(path)},
        names=last.names,
        way=last.way,
        sparse=[path for path in last.sparse if stays(path)],
        room=fit_check.room_of(sizes, links, empty_dirs),
        is_exact=last.is_exact,
    )


def _record(run: SyncRun, backup: Backup, mapping: SyncMapping, sink: Sink, marker: Marker, aside: str) -> None:
    stored = backups.stored_at(sink, aside)
    backups.record(run.tenant_id, mapping, backup.place, backup.location, [stored] if stored else [])
    saved = SavedState.objects.current().filter(tenant_id=run.tenant_id, place__in=places.names_of(mapping.spec))
    saved.filter(location=backup.location).update(
        generation=run.generation, run_id=run.pk, files=marker.manifest.files, bytes=marker.manifest.bytes
    )
