"""Save: what a release, a timer or somebody's wish keeps.

It runs under the container's file lock, which rclone inherits, and deletes at the far end only what this generation
restored first (P5).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace

from django.conf import settings
from django.utils import timezone

from boilerhouse.core import failpoints
from boilerhouse.core.events import emit, recording
from pools import volumes
from pools.names import show
from syncing import backups, completeness, conflicts, errors, listings, patterns, rclone
from syncing.jail import Jail
from syncing.markers import Manifest, Marker
from syncing.marking import open_marker, put_marker, savers
from syncing.models import MappingRestore, SavedState, SyncMapping, SyncRun, SyncSpec
from syncing.runs import Told, add_step, persist, running
from syncing.sinks import Sink
from syncing.sites import Site, place_of, planted
from syncing.states import Direction, Mode, Trigger

MAX_KEY_BYTES = 1024
"""What object stores take as a key; the longest that a save makes is that of a backup."""


def save(
    site: Site,
    specs: list[SyncSpec],
    trigger: Trigger,
    keep_going: Callable[[], bool],
    run_of: Callable[[SyncSpec], SyncRun | None] = lambda _spec: None,
) -> None:
    """Upload every upload mapping of ``specs``. Raises the first SyncFailed; what was saved before stays saved."""
    failure: errors.SyncFailed | None = None
    for spec in specs:
        sink = spec.resolved_sink()
        try:
            with running(spec, site, Direction.UPLOAD, trigger, run_of(spec)) as run:
                for mapping in spec.mappings.all():
                    if mapping.uploads:
                        mapping.spec = spec
                        _save_mapping(run, mapping, site, sink, keep_going)
        except errors.SyncFailed as error:
            failure = failure or error
    if failure:
        raise failure


def _save_mapping(run: SyncRun, mapping: SyncMapping, site: Site, sink: Sink, keep_going: Callable[[], bool]) -> None:
    location = mapping.location(site.tenant_id)
    volume, relative = place_of(site, mapping)
    try:
        with planted(mapping):
            root = volumes.descend(volume, relative, create_for=site.uid if site.is_stopped else None)
    except FileNotFoundError:
        add_step(run, mapping, location, 0, 0, note="The directory does not exist yet.")
        return
    try:
        before = _count(run, mapping, site, sink, root)
        deletes, told = may_delete(mapping, site, location), Told(run, site)

        def attempt() -> tuple[Marker, str, rclone.Outcome]:
            # Each attempt has a backup of its own: what an earlier one moved there must not be overwritten.
            opened, tag = open_marker(run, mapping, sink, location, site)
            failpoints.reach("save.marker-open")
            backup = str(opened.undo[-1]["backup"])
            conflicts.clear(sink, location, opened, before, backup)
            arguments = rclone.upload(
                sink,
                location,
                patterns.to_rclone(mapping.pattern) if mapping.pattern else [],
                deletes=deletes,
                inside=str(relative) if relative.parts else "",
                backup=backup,
                paths=before.seen,
            )
            binds = sink.binds([location, backup], site.uid)
            jail = Jail(volume, site.uid, writable=False, binds=tuple(binds))
            told.begin_try(*told.sent)
            done = rclone.run(
                arguments, sink, jail, site.lock, size=before.bytes, on_progress=told, keep_going=keep_going
            )
            return opened, tag, done

        # What runs goes on changing, so that its tries need never end; its next save goes on where this one stopped.
        resumes = sink.resumes_saves and site.is_stopped
        marker, tag, outcome = persist(attempt, told, run, keep_going, resumes=resumes)
        failpoints.reach("save.uploaded")
        with planted(mapping):
            again = volumes.descend(volume, relative)
        moved = os.fstat(again).st_ino != os.fstat(root).st_ino
        os.close(again)
        if moved:
            raise errors.PathPlanted(f"{mapping.container_path} was replaced while it was saved.")
        changed = 0 if site.is_stopped else _changed_since(before, root, mapping)
    finally:
        os.close(root)
    asked = [savers.submit(backups.found, sink, str(one["backup"])) for one in marker.undo]
    names = dict(sink.names(location))
    kept = [answer.result() for answer in asked]
    matches = patterns.matcher(mapping.pattern)
    manifest = _manifest(names, matches, before, marker.manifest, exact=deletes)
    if site.is_stopped:  # a live tenant goes on writing; the listing is the truth
        completeness.check(location, before.sizes(), names, matches, exact=deletes)
    if mapping.mode == Mode.SYNC and not deletes:
        run.deletes = "withheld"
    run.deleted += outcome.progress.deletes
    closed = replace(marker, state="closed", saved_at=_now(), manifest=manifest, undo=[])
    closed = listings.attach(sink, closed, str(run.pk), names)
    put_marker(mapping, sink, location, closed, tag)
    failpoints.reach("save.marker-closed")
    listings.forget(sink, marker, closed)
    with recording():
        SavedState.objects.current().update_or_create(
            tenant_id=site.tenant_id,
            place=sink.place_name,
            location=location,
            defaults={
                "mapping": mapping,
                "container_path": mapping.container_path,
                "pool_id": site.pool_id,
                "generation": site.generation,
                "run_id": run.pk,
                "files": manifest.files,
                "bytes": manifest.bytes,
                "saved_at": timezone.now(),
            },
        )
        backups.record(site.tenant_id, mapping, sink.place_name, location, [one for one in kept if one])
        if deletes and before.files == 0 and marker.manifest.files:
            emit(
                "pool.warning", pool_id=site.pool_id, tenant_id=site.tenant_id, container_id=site.container_id,
                code="emptied", specId=mapping.spec_id,
                detail=f"The tenant has emptied {mapping.container_path}; its {marker.manifest.files} files are kept as"
                " a backup.",
            )  # fmt: skip
    more = {"changedDuring": changed} if changed else {}
    add_step(run, mapping, location, before.files, before.bytes, transferred=outcome.progress.bytes, **more)


def _count(run: SyncRun, mapping: SyncMapping, site: Site, sink: Sink, root: int) -> volumes.Census:
    """The census before a save. Raises Unsaveable, TooLarge: then nothing has been sent."""
    room = MAX_KEY_BYTES - len(f"{backups.location_of(mapping.location(site.tenant_id), str(run.pk), 99)}/".encode())
    max_files, max_bytes = settings.BOILERHOUSE_MAX_SAVE_FILES, settings.BOILERHOUSE_MAX_SAVE_BYTES
    found = volumes.census(
        root,
        patterns.matcher(mapping.pattern),
        settings.BOILERHOUSE_MAX_FILE_BYTES,
        max_path_bytes=room,
        max_files=max_files,
        all_mtimes=not sink.keeps_mtimes,
    )
    run.skipped = [*run.skipped, *(f"{mapping.container_path}/{_text(path)}" for path in found.skipped)][:100]
    if found.is_cut:
        raise errors.TooLarge(f"{mapping.container_path} holds more than {max_files} files.")
    if found.bytes > max_bytes:
        raise errors.TooLarge(f"{mapping.container_path} holds {found.bytes} bytes; {max_bytes} is the limit.")
    if found.unsaveable:
        named = "; ".join(f"{show(path)}: {why}" for path, why in found.unsaveable[:5])
        raise errors.Unsaveable(f"{len(found.unsaveable)} things cannot be saved: {named}")
    return found


def _changed_since(before: volumes.Census, root: int, mapping: SyncMapping) -> int:
    """How many files a live tenant wrote, made or removed during its save: each of them may be torn (hazard C12)."""
    now = volumes.census(root, patterns.matcher(mapping.pattern), sys.maxsize, max_files=2 * before.files + 1000)
    return len(dict(before.seen.items() ^ now.seen.items()))


def may_delete(mapping: SyncMapping, site: Site, location: str) -> bool:
    """Whether this generation restored the mapping as it is now, so that its save may delete there (P5)."""
    if mapping.mode != Mode.SYNC:
        return False
    return MappingRestore.objects.filter(
        tenant_id=site.tenant_id,
        generation=site.generation,
        mapping=mapping,
        location=location,
        pattern=mapping.pattern,
        spec_version=mapping.spec.version,
    ).exists()


def _manifest(
    names: dict[str, int],
    matches: Callable[[str], bool] | None,
    local: volumes.Census,
    last: Manifest,
    *,
    exact: bool,
) -> Manifest:
    """What a restore would now yield: totals as the sink lists them, the rest from the census.

    Where nothing was deleted at the far end, what earlier saves left there is still part of it.
    """
    files = size = 0
    for name, length in names.items():
        if matches is None or matches(name):
            files, size = files + 1, size + length
    shape = conflicts.Shape(local)

    def carried(path: str) -> bool:
        return not (exact or shape.holds(path) or shape.excludes(path))

    return Manifest(
        files=files,
        bytes=size,
        modes={p: mode for p, mode in last.modes.items() if carried(p)} | local.modes,
        links={p: target for p, target in last.links.items() if carried(p)} | local.links,
        empty_dirs=sorted({p for p in last.empty_dirs if carried(p)} | set(local.empty_dirs)),
        mtimes={p: at for p, at in last.mtimes.items() if carried(p)} | local.mtimes,
        names=sorted({p for p in last.names if carried(p)} | set(local.names)),
    )


def _text(path: str) -> str:
    """A path that can be stored and sent, whatever bytes it has."""
    return path.encode("utf-8", "backslashreplace").decode()


def _now() -> str:
    return timezone.now().isoformat().replace("+00:00", "Z")
