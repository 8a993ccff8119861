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
from syncing.sink_checks import SinkState
from syncing.states import Direction, Trigger
from syncing.targets import TransferTarget, check_alone, place_of, planted


@dataclass(frozen=True, slots=True)
class Restored:
    files: int = 0
    bytes: int = 0


def record_restored(
    sink_states: list[SinkState], target: TransferTarget, counts_of: dict[int, Restored] | None = None
) -> None:
    """Record, per mapping, that this generation has the sink's state, so its uploads may delete there from now on."""
    rows = []
    for sink_state in sink_states:
        counts = (counts_of or {}).get(sink_state.mapping.pk, Restored())
        rows.append(
            MappingRestore(
                tenant_id=target.tenant_id,
                generation=target.generation,
                mapping=sink_state.mapping,
                location=sink_state.location,
                pattern=sink_state.mapping.pattern,
                spec_version=sink_state.mapping.spec.version,
                marker_run=sink_state.marker.run_id if sink_state.marker else "",
                files=counts.files,
                bytes=counts.bytes,
            )
        )
    MappingRestore.objects.bulk_create(rows, ignore_conflicts=True)


def restore(
    target: TransferTarget,
    sink_states: list[SinkState],
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
    with quota.spare(target.node.volumes.home(target.container_id)):
        return _restore(target, sink_states, trigger, keep_going, run_of, is_patient=is_patient)


def _restore(
    target: TransferTarget,
    sink_states: list[SinkState],
    trigger: Trigger,
    keep_going: Callable[[], bool],
    run_of: Callable[[SyncSpec], SyncRun | None],
    *,
    is_patient: bool,
) -> Restored:
    total = Restored()
    for spec in {sink_state.mapping.spec_id: sink_state.mapping.spec for sink_state in sink_states}.values():
        own = [sink_state for sink_state in sink_states if sink_state.mapping.spec_id == spec.pk]
        going = stalls.while_going(keep_going, errors.TransferCancelled)
        with running(spec, target, Direction.DOWNLOAD, trigger, run_of(spec)) as run, going:
            counts = _Restore(run, target, trigger, keep_going, _reporter_of(run, target, own), is_patient).run(own)
        total = Restored(total.files + sum(restored.files for restored in counts.values()),
                         total.bytes + sum(restored.bytes for restored in counts.values()))  # fmt: skip
        if trigger == Trigger.CLAIM:
            record_restored(own, target, counts)
    return total


def size_of(sink_states: list[SinkState]) -> int:
    """Approximately how many bytes a restore of these fetches."""
    return sum(sink_state.marker.manifest.bytes for sink_state in sink_states if sink_state.marker)


def _reporter_of(run: SyncRun, target: TransferTarget, sink_states: list[SinkState]) -> ProgressReporter:
    """Reports the run's progress from the beginning, with the totals of the markers."""
    nonempty = [sink_state for sink_state in sink_states if not sink_state.is_empty]
    manifests = [sink_state.marker.manifest for sink_state in nonempty if sink_state.marker]
    if len(manifests) < len(nonempty):
        return ProgressReporter(run, target)
    return ProgressReporter(
        run, target, sum(manifest.files for manifest in manifests), sum(manifest.bytes for manifest in manifests)
    )


@dataclass(frozen=True, slots=True)
class _Staged:
    """A mapping's verified state, ready to be moved in."""

    sink_state: SinkState
    name: str
    directory: Path
    note: staged_restores.Note | None
    restored: Restored
    marker: Marker | None


@dataclass(slots=True)
class _Restore:
    """A spec's mappings: all are staged before the first is moved in, so that a failure loses less."""

    run_row: SyncRun
    target: TransferTarget
    trigger: Trigger
    keep_going: Callable[[], bool]
    reporter: ProgressReporter
    is_patient: bool
    _done: Restored = field(default_factory=Restored)

    def run(self, sink_states: list[SinkState]) -> dict[int, Restored]:
        """Stage and move in; return each mapping's result, by its id. Raises SyncFailed."""
        counts: dict[int, Restored] = {}
        ready: list[_Staged] = []
        for sink_state in sink_states:
            check_alone(self.target, sink_state.mapping)
            mapping = sink_state.mapping
            staged = Restored() if sink_state.is_empty else self._stage(sink_state)
            if isinstance(staged, _Staged):
                ready.append(staged)
            restored = staged.restored if isinstance(staged, _Staged) else staged
            self._done = Restored(self._done.files + restored.files, self._done.bytes + restored.bytes)
            if not sink_state.is_empty:
                counts[mapping.pk] = restored
        for staging in ready:
            self._move_in(staging)
        for sink_state in sink_states:
            restored = counts.get(sink_state.mapping.pk, Restored())
            add_step(self.run_row, sink_state.mapping, sink_state.location, restored.files, restored.bytes)
        return counts

    def _stage(self, sink_state: SinkState) -> _Staged | Restored:
        """Fetch missing files and verify everything. Restored: there is nothing left to move in."""
        mapping, marker, target = sink_state.mapping, sink_state.marker, self.target
        if marker is not None and marker.state == "open":
            marker = rollback.roll_back(sink_state.sink, sink_state.location, marker)
            if marker.manifest.is_empty:
                return Restored()
        name, note = f"mapping-{mapping.pk}", self._note(sink_state, marker)
        if note is not None and self.trigger == Trigger.CLAIM:
            earlier = staged_restores.planted(target.container_id, name, note)
            if earlier is not None:
                return Restored(*earlier)
        staging = staged_restores.open_staging(target.container_id, target.owner, name, note)
        if marker is not None:
            need = max(marker.manifest.room, marker.manifest.bytes) - staged_restores.count(staging)[1]
            fit_check.check_room(target, need, sink_state.location, beside=self.trigger != Trigger.CLAIM)
        self._fetch(sink_state, staging, marker.manifest.bytes if marker else 0)
        failpoints.reach("restore.downloaded")
        census = _census(staging)
        staged_restores.close(target.container_id, name)
        if marker is not None:
            _apply(sink_state, target, staging, census, marker.manifest)
        return _Staged(sink_state, name, staging, note, Restored(census.files, census.bytes), marker)

    def _note(self, sink_state: SinkState, marker: Marker | None) -> staged_restores.Note | None:
        """The key that identifies the save of staged files; None if it is unknown."""
        if marker is None:
            return None
        where = [sink_state.sink.place_name, sink_state.location, sink_state.mapping.pattern]
        save = hashlib.sha256(marker.dump()).hexdigest()
        return staged_restores.note_of(self.target.tenant_id, json.dumps(where), save)

    def _fetch(self, sink_state: SinkState, staging: Path, size: int) -> None:
        target, sink = self.target, sink_state.sink
        filters = patterns.to_rclone(sink_state.mapping.pattern) if sink_state.mapping.pattern else []
        spares = not sink_state.mapping.uploads
        arguments = rclone.download(sink, sink_state.location, filters, spares_places=spares)
        jail = Jail(staging, target.owner, writable=True, binds=tuple(sink.binds([sink_state.location], None)))

        def attempt() -> None:
            files, there = staged_restores.count(staging)
            self.reporter.begin_try(self._done.files + files, self._done.bytes + there)
            rclone.run(
                arguments, sink, jail, target.lock, location=sink_state.location, size=size,
                on_progress=self.reporter, keep_going=self.keep_going, is_awaited=self.trigger.is_awaited,
            )  # fmt: skip

        persist(attempt, self.reporter, self.keep_going, resumes=True, is_patient=self.is_patient)

    def _move_in(self, stage: _Staged) -> None:
        target, mapping = self.target, stage.sink_state.mapping
        volume, relative = place_of(target, mapping)
        overlay = bool(mapping.pattern) or self.trigger != Trigger.CLAIM
        restored = stage.marker if self.trigger == Trigger.CLAIM else None
        marker = restored if mapping.spec.interval_ms is not None else None
        names = _census(stage.directory).stamps if marker else {}
        with planted(mapping):
            target.node.volumes.move_in(
                target.container_id, target.owner, stage.directory, volume, relative, replace=not overlay
            )
            if restored is not None:
                volumes.apply_modes_on_way(volume, relative, restored.manifest.way)
            if marker is not None:
                present, at_ns = volumes.descend(volume, relative), time.time_ns()
                try:
                    now = records.restored(names, snapshots.still(present, list(names)), at_ns)
                finally:
                    os.close(present)
                records.store(target, mapping, stage.sink_state.sink, stage.sink_state.location, marker.saved_at, now)
        if stage.note is not None and self.trigger == Trigger.CLAIM:
            staged_restores.mark_planted(
                target.container_id, stage.name, stage.note, stage.restored.files, stage.restored.bytes
            )
        failpoints.reach("restore.moved-in")


def _apply(
    sink_state: SinkState, target: TransferTarget, staging: Path, census: volumes.Census, manifest: Manifest
) -> None:
    """Verify the staged files against the manifest, and apply the attributes that the sink lacks. Raises Incomplete."""
    if (census.files, census.bytes) != (manifest.files, manifest.bytes):
        raise errors.Incomplete(
            f"{sink_state.location} returned {census.files} files, {census.bytes} bytes; the last save had"
            f" {manifest.files} files, {manifest.bytes} bytes."
        )
    volumes.restore_names(staging, [name for name in manifest.names if name not in manifest.links])
    volumes.dig_holes(staging, manifest.sparse)
    missing = volumes.apply_mtimes(staging, manifest.mtimes)
    if missing and manifest.is_exact:
        raise errors.Incomplete(f"{sink_state.location} did not return {', '.join(map(show, missing[:5]))}.")
    volumes.apply_manifest(staging, target.owner, manifest.modes, manifest.links, manifest.empty_dirs)


def _census(directory: Path) -> volumes.Census:
    root = volumes.descend(directory, PurePosixPath())
    try:
        return volumes.census(root, None, settings.BOILERHOUSE_MAX_FILE_BYTES)
    finally:
        os.close(root)
