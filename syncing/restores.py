"""Restores: of a claim, or of an inward sync.

Files are staged, verified and moved in. A restore never deletes at the sink.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from django.conf import settings

from boilerhouse.core import failpoints
from boilerhouse.process import stalls
from pools import quota, volumes
from pools.file_names import show
from pools.volumes import staged_restores
from syncing import errors, fit_check, patterns, rclone, records, rollback, snapshots
from syncing.jail import Jail
from syncing.markers import Manifest, Marker
from syncing.models import MappingRestore, SyncRun, SyncSpec
from syncing.runs import ProgressReporter, add_step, persist, running
from syncing.sink_checks import Finding
from syncing.states import Direction, Trigger
from syncing.targets import Site, check_alone, place_of, planted


@dataclass(frozen=True, slots=True)
class Restored:
    files: int = 0
    bytes: int = 0


def record_restored(findings: list[Finding], site: Site, got: dict[int, Restored] | None = None) -> None:
    """Record, per mapping, that this generation has the sink's state, so its uploads may delete there from now on."""
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
    *,
    is_patient: bool = False,
) -> Restored:
    """Restore the sinks' state into the container's volumes and record it.

    Everything is staged and verified first. In a running container (manual sync), files are overwritten, never deleted.
    ``is_patient``: a lost connection is retried until the stall limit, because no client waits. Raises SyncFailed; the
    volumes are then unchanged, except for mappings that were moved in before.
    """
    with quota.spare(site.node.volumes.home(site.container_id)):
        return _restore(site, findings, trigger, keep_going, run_of, is_patient=is_patient)


def _restore(
    site: Site,
    findings: list[Finding],
    trigger: Trigger,
    keep_going: Callable[[], bool],
    run_of: Callable[[SyncSpec], SyncRun | None],
    *,
    is_patient: bool,
) -> Restored:
    total = Restored()
    for spec in {finding.mapping.spec_id: finding.mapping.spec for finding in findings}.values():
        own = [finding for finding in findings if finding.mapping.spec_id == spec.pk]
        going = stalls.while_going(keep_going, errors.TransferCancelled)
        with running(spec, site, Direction.DOWNLOAD, trigger, run_of(spec)) as run, going:
            got = _Restore(run, site, trigger, keep_going, _reporter_of(run, site, own), is_patient).run(own)
        total = Restored(total.files + sum(one.files for one in got.values()),
                         total.bytes + sum(one.bytes for one in got.values()))  # fmt: skip
        if trigger == Trigger.CLAIM:
            record_restored(own, site, got)
    return total


def size_of(findings: list[Finding]) -> int:
    """Approximately how many bytes a restore of these fetches."""
    return sum(finding.marker.manifest.bytes for finding in findings if finding.marker)


def _reporter_of(run: SyncRun, site: Site, findings: list[Finding]) -> ProgressReporter:
    """Reports the run's progress from the beginning, with the totals of the markers."""
    wanted = [finding for finding in findings if not finding.is_empty]
    manifests = [finding.marker.manifest for finding in wanted if finding.marker]
    if len(manifests) < len(wanted):
        return ProgressReporter(run, site)
    return ProgressReporter(run, site, sum(one.files for one in manifests), sum(one.bytes for one in manifests))


@dataclass(frozen=True, slots=True)
class _Staged:
    """A mapping's verified state, ready to be moved in."""

    finding: Finding
    name: str
    directory: Path
    note: staged_restores.Note | None
    restored: Restored
    marker: Marker | None


@dataclass(slots=True)
class _Restore:
    """A spec's mappings: all are staged before the first is moved in, so that a failure loses less."""

    run_row: SyncRun
    site: Site
    trigger: Trigger
    keep_going: Callable[[], bool]
    reporter: ProgressReporter
    is_patient: bool
    _done: Restored = field(default_factory=Restored)

    def run(self, findings: list[Finding]) -> dict[int, Restored]:
        """Stage and move in; return each mapping's result, by its id. Raises SyncFailed."""
        got: dict[int, Restored] = {}
        ready: list[_Staged] = []
        for finding in findings:
            check_alone(self.site, finding.mapping)
            mapping = finding.mapping
            one = Restored() if finding.is_empty else self._stage(finding)
            if isinstance(one, _Staged):
                ready.append(one)
                one = one.restored
            self._done = Restored(self._done.files + one.files, self._done.bytes + one.bytes)
            if not finding.is_empty:
                got[mapping.pk] = one
        for staging in ready:
            self._move_in(staging)
        for finding in findings:
            one = got.get(finding.mapping.pk, Restored())
            add_step(self.run_row, finding.mapping, finding.location, one.files, one.bytes)
        return got

    def _stage(self, finding: Finding) -> _Staged | Restored:
        """Fetch missing files and verify everything. Restored: there is nothing left to move in."""
        mapping, marker, site = finding.mapping, finding.marker, self.site
        if marker is not None and marker.state == "open":
            marker = rollback.take_back(finding.sink, finding.location, marker)
            if marker.manifest.is_empty:
                return Restored()
        name, note = f"mapping-{mapping.pk}", self._note(finding, marker)
        if note is not None and self.trigger == Trigger.CLAIM:
            known = staged_restores.planted(site.container_id, name, note)
            if known is not None:
                return Restored(*known)
        staging = staged_restores.open_staging(site.container_id, site.owner, name, note)
        if marker is not None:
            need = max(marker.manifest.room, marker.manifest.bytes) - staged_restores.count(staging)[1]
            fit_check.check_room(site, need, finding.location, beside=self.trigger != Trigger.CLAIM)
        self._fetch(finding, staging, marker.manifest.bytes if marker else 0)
        failpoints.reach("restore.downloaded")
        seen = _census(staging)
        staged_restores.close(site.container_id, name)
        if marker is not None:
            _apply(finding, site, staging, seen, marker.manifest)
        return _Staged(finding, name, staging, note, Restored(seen.files, seen.bytes), marker)

    def _note(self, finding: Finding, marker: Marker | None) -> staged_restores.Note | None:
        """The key that identifies the save of staged files; None if it is unknown."""
        if marker is None:
            return None
        where = [finding.sink.place_name, finding.location, finding.mapping.pattern]
        save = hashlib.sha256(marker.dump()).hexdigest()
        return staged_restores.note_of(self.site.tenant_id, json.dumps(where), save)

    def _fetch(self, finding: Finding, staging: Path, size: int) -> None:
        site, sink = self.site, finding.sink
        filters = patterns.to_rclone(finding.mapping.pattern) if finding.mapping.pattern else []
        spares = not finding.mapping.uploads
        arguments = rclone.download(sink, finding.location, filters, spares_places=spares)
        jail = Jail(staging, site.owner, writable=True, binds=tuple(sink.binds([finding.location], None)))

        def attempt() -> None:
            files, there = staged_restores.count(staging)
            self.reporter.begin_try(self._done.files + files, self._done.bytes + there)
            rclone.run(
                arguments, sink, jail, site.lock, location=finding.location, size=size,
                on_progress=self.reporter, keep_going=self.keep_going, is_awaited=self.trigger.is_awaited,
            )  # fmt: skip

        persist(attempt, self.reporter, self.keep_going, resumes=True, is_patient=self.is_patient)

    def _move_in(self, one: _Staged) -> None:
        site, mapping = self.site, one.finding.mapping
        volume, relative = place_of(site, mapping)
        overlay = bool(mapping.pattern) or self.trigger != Trigger.CLAIM
        restored = one.marker if self.trigger == Trigger.CLAIM else None
        marker = restored if mapping.spec.interval_ms is not None else None
        names = _census(one.directory).seen if marker else {}
        with planted(mapping):
            site.node.volumes.move_in(
                site.container_id, site.owner, one.directory, volume, relative, replace=not overlay
            )
            if restored is not None:
                volumes.apply_modes_on_way(volume, relative, restored.manifest.way)
            if marker is not None:
                present, at_ns = volumes.descend(volume, relative), time.time_ns()
                try:
                    now = records.restored(names, snapshots.still(present, list(names)), at_ns)
                finally:
                    os.close(present)
                records.store(site, mapping, one.finding.sink, one.finding.location, marker.saved_at, now)
        if one.note is not None and self.trigger == Trigger.CLAIM:
            staged_restores.mark_planted(site.container_id, one.name, one.note, one.restored.files, one.restored.bytes)
        failpoints.reach("restore.moved-in")


def _apply(finding: Finding, site: Site, staging: Path, seen: volumes.Census, manifest: Manifest) -> None:
    """Verify the staged files against the manifest, and apply the attributes that the sink lacks. Raises Incomplete."""
    if (seen.files, seen.bytes) != (manifest.files, manifest.bytes):
        raise errors.Incomplete(
            f"{finding.location} returned {seen.files} files, {seen.bytes} bytes; the last save had"
            f" {manifest.files} files, {manifest.bytes} bytes."
        )
    volumes.restore_names(staging, [name for name in manifest.names if name not in manifest.links])
    volumes.dig_holes(staging, manifest.sparse)
    missing = volumes.apply_mtimes(staging, manifest.mtimes)
    if missing and manifest.is_exact:
        raise errors.Incomplete(f"{finding.location} did not return {', '.join(map(show, missing[:5]))}.")
    volumes.apply_manifest(staging, site.owner, manifest.modes, manifest.links, manifest.empty_dirs)


def _census(directory: Path) -> volumes.Census:
    root = volumes.descend(directory, PurePosixPath())
    try:
        return volumes.census(root, None, settings.BOILERHOUSE_MAX_FILE_BYTES)
    finally:
        os.close(root)
