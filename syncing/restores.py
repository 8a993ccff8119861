"""Restore: what a claim, or a sync inward, brings back.

It lands in staging, is verified and moved in; it never deletes at the far end.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

from boilerhouse.core import failpoints
from pools import volumes
from syncing import errors, patterns, rclone, records, snapshots, undo
from syncing.jail import Jail
from syncing.markers import Manifest
from syncing.models import MappingRestore, SyncRun, SyncSpec
from syncing.runs import Told, add_step, persist, running
from syncing.sites import Site, check_alone, place_of, planted
from syncing.states import Direction, Trigger
from syncing.surveys import Finding


@dataclass(frozen=True, slots=True)
class Restored:
    files: int = 0
    bytes: int = 0


def record_restored(findings: list[Finding], site: Site, got: dict[int, Restored] | None = None) -> None:
    """Note, per mapping, that this generation has what the sink held; uploads may delete there from now on."""
    rows = []
    for finding in findings:
        counts = (got or {}).get(finding.mapping.pk, Restored())
        rows.append(
            MappingRestore(
                tenant_id=site.tenant_id,
                generation=site.generation,
                mapping=finding.mapping,
                location=finding.location,
                pattern=finding.mapping.pattern,
                spec_version=finding.mapping.spec.version,
                marker_run=finding.marker.run_id if finding.marker else "",
                files=counts.files,
                bytes=counts.bytes,
            )
        )
    MappingRestore.objects.bulk_create(rows, ignore_conflicts=True)


def restore(
    site: Site,
    findings: list[Finding],
    trigger: Trigger,
    keep_going: Callable[[], bool],
    run_of: Callable[[SyncSpec], SyncRun | None] = lambda _spec: None,
) -> Restored:
    """Bring what the sinks hold into the container's volumes and note it as restored.

    Everything is staged and verified first. On a live container (manual) files are overwritten, never deleted.
    Raises SyncFailed; the volumes are then as they were, but for mappings that were moved in before.
    """
    total = Restored()
    for spec in {finding.mapping.spec_id: finding.mapping.spec for finding in findings}.values():
        own = [finding for finding in findings if finding.mapping.spec_id == spec.pk]
        got: dict[int, Restored] = {}
        with running(spec, site, Direction.DOWNLOAD, trigger, run_of(spec)) as run:
            for finding in own:
                if finding.is_empty:
                    add_step(run, finding.mapping, finding.location, 0, 0)
                    continue
                restored = _restore_mapping(run, finding, site, trigger, keep_going)
                got[finding.mapping.pk] = restored
                add_step(run, finding.mapping, finding.location, restored.files, restored.bytes)
                total = Restored(total.files + restored.files, total.bytes + restored.bytes)
        if trigger == Trigger.CLAIM:
            record_restored(own, site, got)
    return total


def _restore_mapping(
    run: SyncRun, finding: Finding, site: Site, trigger: Trigger, keep_going: Callable[[], bool]
) -> Restored:
    mapping, marker = finding.mapping, finding.marker
    check_alone(site, mapping)
    if marker is not None and marker.state == "open":
        marker = undo.take_back(finding.sink, finding.location, marker)
        if marker.manifest.is_empty:
            return Restored()
    filters = patterns.to_rclone(mapping.pattern) if mapping.pattern else []
    if marker is not None:
        _check_room(site, marker.manifest)
    staging = volumes.new_staging(site.container_id, site.uid, f"mapping-{mapping.pk}")
    arguments = rclone.download(finding.sink, finding.location, filters)
    jail = Jail(staging, site.uid, writable=True, binds=tuple(finding.sink.binds([finding.location], None)))
    told = Told(run, site)

    def attempt() -> None:
        told.begin_try(0, 0)
        size = marker.manifest.bytes if marker else 0
        rclone.run(arguments, finding.sink, jail, site.lock, size=size, on_progress=told, keep_going=keep_going)

    persist(attempt, told, run, keep_going, resumes=True)
    failpoints.reach("restore.downloaded")
    seen = _census(staging)
    if marker is not None:
        manifest = marker.manifest
        if (seen.files, seen.bytes) != (manifest.files, manifest.bytes):
            raise errors.Incomplete(
                f"{finding.location} gave {seen.files} files, {seen.bytes} bytes; the last save had"
                f" {manifest.files} files, {manifest.bytes} bytes."
            )
        volumes.restore_names(staging, manifest.names)
        volumes.apply_mtimes(staging, manifest.mtimes, only_empty=finding.sink.keeps_mtimes)
        volumes.apply_manifest(staging, site.uid, manifest.modes, manifest.links, manifest.empty_dirs)
    volume, relative = place_of(site, mapping)
    overlay = bool(mapping.pattern) or trigger != Trigger.CLAIM
    is_recorded = trigger == Trigger.CLAIM and marker is not None and mapping.spec.interval_ms is not None
    staged = _census(staging).seen if is_recorded else {}
    with planted(mapping):
        volumes.move_in(site.container_id, site.uid, staging, volume, relative, replace=not overlay)
        if is_recorded and marker is not None:
            present, at_ns = volumes.descend(volume, relative), time.time_ns()
            try:
                now = records.restored(staged, snapshots.still(present, list(staged)), at_ns)
            finally:
                os.close(present)
            records.store(site, mapping, finding.sink, finding.location, marker.saved_at, now)
    failpoints.reach("restore.moved-in")
    return Restored(seen.files, seen.bytes)


def _check_room(site: Site, manifest: Manifest) -> None:
    """Raise DiskFull before the first byte where the state cannot fit."""
    disk = os.statvfs(volumes.home(site.container_id))
    free = disk.f_bavail * disk.f_frsize
    if manifest.bytes > free:
        raise errors.DiskFull(f"The state has {manifest.bytes} bytes; {free} are free on this node.")


def _census(directory: Path) -> volumes.Census:
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        return volumes.census(root, None, settings.BOILERHOUSE_MAX_FILE_BYTES)
    finally:
        os.close(root)
