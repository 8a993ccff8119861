"""Restore and save: what a claim brings back and what a release keeps.

Both run under the container's file lock, which rclone inherits. A restore lands in staging, is verified
and moved in; it never deletes at the far end. A save deletes there only what this generation restored first (P5).
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from uuid import UUID

import structlog
from django.conf import settings
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone

from boilerhouse.core import failpoints, processes
from boilerhouse.core.deployment import deployment_id
from boilerhouse.core.errors import BoilerhouseError
from boilerhouse.core.events import emit, recording
from pools import volumes
from pools.spec import WorkloadSpec
from syncing import backups, conflicts, errors, listings, patterns, rclone, services, undo
from syncing.jail import Jail
from syncing.locations import marker_key
from syncing.markers import Manifest, Marker
from syncing.models import MappingRestore, SavedState, SyncMapping, SyncRun, SyncSpec
from syncing.sinks import CLAIM_DEADLINE_S, RUN_DEADLINE_S, Sink
from syncing.states import Direction, Mode, SyncRunState, Trigger

log = structlog.get_logger(__name__)


MAX_KEY_BYTES = 1024
"""What object stores take as a key; the longest that a save makes is that of a backup."""


@dataclass(frozen=True, slots=True)
class Site:
    """The container that a transfer works on, held by its lock."""

    container_id: UUID
    uid: int
    pool_id: str
    spec: WorkloadSpec
    tenant_id: str
    generation: int
    lock: int
    """Descriptor of the held lock; every rclone inherits it."""
    is_stopped: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """What the sink holds for one mapping of one tenant."""

    mapping: SyncMapping
    sink: Sink
    location: str
    marker: Marker | None
    has_objects: bool

    @property
    def is_empty(self) -> bool:
        """Nothing to restore and nothing to take back."""
        if self.marker is not None:
            return self.marker.state == "closed" and self.marker.manifest.is_empty
        return not self.has_objects


@dataclass(frozen=True, slots=True)
class Restored:
    files: int = 0
    bytes: int = 0


# Survey ---------------------------------------------------------------------------------------------


def survey(pool_id: str, tenant_id: str) -> list[Finding]:
    """Ask the sinks, in process, what they hold for the tenant; see ``begin_survey``."""
    return survey_specs(services.specs_to_restore(pool_id), tenant_id)()


def begin_survey(pool_id: str, tenant_id: str) -> Callable[[], list[Finding]]:
    """Start asking the sinks, in threads of their own, and return how to get the answer.

    The returned function raises SyncFailed when a sink does not say, StateMissing and StateMoved when it says nothing
    but we know of a save (hazard C2): an empty answer is a first time only if nothing was ever saved.
    """
    return survey_specs(services.specs_to_restore(pool_id), tenant_id)


_askers = ThreadPoolExecutor(8, thread_name_prefix="sinks")
_savers = ThreadPoolExecutor(16, thread_name_prefix="saves")
"""Apart from the others: a sink that hangs while it is saved to must not keep claims waiting."""


def survey_specs(specs: list[SyncSpec], tenant_id: str) -> Callable[[], list[Finding]]:
    """``begin_survey`` for given specs."""
    asked: list[tuple[SyncMapping, Sink, str, Future[tuple[Marker | None, str]], Future[bool]]] = []
    for spec in specs:
        sink = spec.resolved_sink()
        for mapping in spec.mappings.all():
            if mapping.restores:
                mapping.spec = spec
                location = mapping.location(tenant_id)
                marker = _askers.submit(_read_marker, sink, location, CLAIM_DEADLINE_S)
                has_objects = _askers.submit(sink.has_objects, location, CLAIM_DEADLINE_S)
                asked.append((mapping, sink, location, marker, has_objects))

    def answers() -> list[Finding]:
        findings = [Finding(m, sink, at, marker.result()[0], has.result()) for m, sink, at, marker, has in asked]
        _check_first_times([f for f in findings if f.marker is None and not f.has_objects], tenant_id)
        return findings

    return answers


def _read_marker(sink: Sink, location: str, deadline_s: int) -> tuple[Marker | None, str]:
    """The marker of a location and its tag at the sink."""
    content, tag = sink.read(marker_key(location), deadline_s)
    if content is None:
        return None, tag
    try:
        return Marker.load(content), tag
    except ValueError as error:
        raise errors.Incomplete(f"The marker of {location} cannot be read: {error}.") from error


def _check_first_times(silent: list[Finding], tenant_id: str) -> None:
    silent = [finding for finding in silent if finding.mapping.uploads]
    if not silent:
        return
    known = list(SavedState.objects.filter(tenant_id=tenant_id, files__gt=0).order_by("-saved_at"))
    for finding in silent:
        for saved in known:
            if (saved.place, saved.location) == (_place(finding.sink), finding.location):
                raise errors.StateMissing(
                    f"{saved.files} files were saved at {finding.location} on {saved.saved_at:%Y-%m-%d %H:%M} UTC;"
                    f" nothing is there now."
                )
            if saved.mapping_id == finding.mapping.pk:
                raise errors.StateMoved(
                    f"This tenant's state was saved at {saved.location}, not at {finding.location}."
                )


def _place(sink: Sink) -> str:
    return " ".join(sink.place)


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


# Runs -----------------------------------------------------------------------------------------------


def queue_run(spec: SyncSpec, site_of: Site, direction: Direction, trigger: Trigger) -> SyncRun:
    return SyncRun.objects.create(
        spec=spec,
        tenant_id=site_of.tenant_id,
        container_id=site_of.container_id,
        generation=site_of.generation,
        direction=direction,
        trigger=trigger,
    )


@contextmanager
def _running(
    spec: SyncSpec, site: Site, direction: Direction, trigger: Trigger, run: SyncRun | None
) -> Iterator[SyncRun]:
    """A run's row around its work: running, then succeeded or failed with the error's code and words."""
    _bury_interrupted(spec, site)
    with recording():
        run = run or queue_run(spec, site, direction, trigger)
        began = SyncRun.objects.filter(pk=run.pk, state=SyncRunState.QUEUED).update(
            state=SyncRunState.RUNNING, started_at=Now(), owner=processes.current()
        )
        if not began:
            raise errors.TransferCancelled("It was cancelled before it began.")
        told = {"runId": str(run.pk), "specId": spec.pk, "direction": direction, "trigger": trigger}
        about: dict[str, Any] = {
            "pool_id": site.pool_id,
            "tenant_id": site.tenant_id,
            "container_id": site.container_id,
        }
        emit("sync.started", **about, **told)
    try:
        yield run
    except Exception as error:  # whatever it was, the row must not say "running" for ever
        code, detail = getattr(error, "code", "failed"), getattr(error, "detail", str(error))
        cancelled = isinstance(error, errors.TransferCancelled)
        state = SyncRunState.CANCELLED if cancelled else SyncRunState.FAILED
        with recording():
            SyncRun.objects.filter(pk=run.pk).update(
                state=state,
                finished_at=Now(),
                error_code=code,
                error_detail=detail,
                steps=run.steps,
                skipped=run.skipped,
            )
            emit(f"sync.{state}", **about, **told, code=code, detail=detail)
        if isinstance(error, BoilerhouseError):
            raise
        raise errors.SyncFailed(detail) from error
    with recording():
        SyncRun.objects.filter(pk=run.pk).update(
            state=SyncRunState.SUCCEEDED,
            finished_at=Now(),
            steps=run.steps,
            progress=run.progress,
            deleted=run.deleted,
            deletes=run.deletes,
            skipped=run.skipped,
        )
        done = {"files": run.progress.get("files", 0), "bytes": run.progress.get("bytes", 0), "deleted": run.deleted}
        emit("sync.completed", **about, **told, **done)


def _bury_interrupted(spec: SyncSpec, site: Site) -> None:
    """We hold the lock, so whatever still says it runs here is dead."""
    SyncRun.objects.filter(spec=spec, container_id=site.container_id, state=SyncRunState.RUNNING).update(
        state=SyncRunState.FAILED,
        finished_at=Now(),
        error_code="interrupted",
        error_detail="The process that ran it died.",
    )


def _watch(run: SyncRun, site: Site, keep_going: Callable[[], bool]) -> Callable[[rclone.Progress], bool]:
    def on_progress(progress: rclone.Progress) -> bool:
        shown = _progress(progress)
        with recording():
            SyncRun.objects.filter(pk=run.pk).update(progress=shown)
            emit(
                "sync.progress", pool_id=site.pool_id, tenant_id=site.tenant_id, container_id=site.container_id,
                runId=str(run.pk), specId=run.spec_id, direction=run.direction, **shown,
            )  # fmt: skip
        return keep_going()

    return on_progress


def _progress(progress: rclone.Progress) -> dict[str, Any]:
    total = progress.total_bytes
    return {
        "bytes": progress.bytes,
        "totalBytes": total,
        "files": progress.files,
        "totalFiles": progress.total_files,
        "percent": round(100 * progress.bytes / total, 1) if total else None,
        "bytesPerSecond": round(progress.bytes_per_second),
        "etaMs": progress.eta_ms,
    }


def _add_step(run: SyncRun, mapping: SyncMapping, location: str, files: int, size: int, **more: Any) -> None:
    step = {"mapping": mapping.position, "containerPath": mapping.container_path, "location": location}
    run.steps = [*run.steps, {**step, "files": files, "bytes": size, **more}]
    totals = {"files": sum(s["files"] for s in run.steps), "bytes": sum(s["bytes"] for s in run.steps)}
    run.progress = {**totals, "totalFiles": totals["files"], "totalBytes": totals["bytes"], "percent": 100.0}


RETRY_AFTER_S = (0.5, 2.0)
"""Pauses before a transfer is tried again; what then still fails is the run's error."""
RETRY_WITHIN_S = 30
"""A sink that took longer to fail is not waited for again: a tenant waits for the claim or the release."""

T = TypeVar("T")


def _persist(attempt: Callable[[], T], run: SyncRun, keep_going: Callable[[], bool]) -> T:
    """The result of ``attempt``, tried again where that can help: a refusal or a full disk stays what it is."""
    began = time.monotonic()
    for pause in RETRY_AFTER_S:
        try:
            return attempt()
        except errors.SyncFailed as error:
            if not error.may_pass or time.monotonic() - began > RETRY_WITHIN_S or not keep_going():
                raise
            log.warning("transfer tried again", run=str(run.pk), code=error.code, detail=error.detail[:300])
            SyncRun.objects.filter(pk=run.pk).update(retries=F("retries") + 1)
        time.sleep(pause)
    return attempt()


# Restore --------------------------------------------------------------------------------------------


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
        with _running(spec, site, Direction.DOWNLOAD, trigger, run_of(spec)) as run:
            for finding in own:
                if finding.is_empty:
                    _add_step(run, finding.mapping, finding.location, 0, 0)
                    continue
                restored = _restore_mapping(run, finding, site, trigger, keep_going)
                got[finding.mapping.pk] = restored
                _add_step(run, finding.mapping, finding.location, restored.files, restored.bytes)
                total = Restored(total.files + restored.files, total.bytes + restored.bytes)
        if trigger == Trigger.CLAIM:
            record_restored(own, site, got)
    return total


def _restore_mapping(
    run: SyncRun, finding: Finding, site: Site, trigger: Trigger, keep_going: Callable[[], bool]
) -> Restored:
    mapping, marker = finding.mapping, finding.marker
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
    watch = _watch(run, site, keep_going)
    _persist(lambda: rclone.run(arguments, finding.sink, jail, site.lock, on_progress=watch), run, keep_going)
    failpoints.reach("restore.downloaded")
    seen = _census(staging)
    if marker is not None:
        expected = marker.manifest
        if (seen.files, seen.bytes) != (expected.files, expected.bytes):
            raise errors.Incomplete(
                f"{finding.location} gave {seen.files} files, {seen.bytes} bytes; the last save had"
                f" {expected.files} files, {expected.bytes} bytes."
            )
    if marker is not None:
        manifest = marker.manifest
        volumes.restore_names(staging, manifest.names)
        volumes.apply_mtimes(staging, manifest.mtimes, only_empty=finding.sink.keeps_mtimes)
        volumes.apply_manifest(staging, site.uid, manifest.modes, manifest.links, manifest.empty_dirs)
    volume, relative = _place_of(site, mapping)
    overlay = bool(mapping.pattern) or trigger != Trigger.CLAIM
    with _planted(mapping):
        volumes.move_in(site.container_id, site.uid, staging, volume, relative, replace=not overlay)
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


def _place_of(site: Site, mapping: SyncMapping) -> tuple[Path, PurePosixPath]:
    found = site.spec.volume_of(mapping.container_path)
    if found is None:
        raise errors.SyncFailed(f"{mapping.container_path} lies in no volume of this container's workload version.")
    volume, relative = found
    return volumes.volume_path(site.container_id, volume.name), relative


@contextmanager
def _planted(mapping: SyncMapping) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY):
            raise errors.PathPlanted(
                f"Something else stands where {mapping.container_path} should be a directory."
            ) from error
        raise


# Save -----------------------------------------------------------------------------------------------


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
            with _running(spec, site, Direction.UPLOAD, trigger, run_of(spec)) as run:
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
    volume, relative = _place_of(site, mapping)
    try:
        with _planted(mapping):
            root = volumes.descend(volume, relative, create_for=site.uid if site.is_stopped else None)
    except FileNotFoundError:
        _add_step(run, mapping, location, 0, 0, note="The directory does not exist yet.")
        return
    try:
        before = _count(run, mapping, site, sink, root)
        deletes, tag = _may_delete(mapping, site, location), ""

        def attempt() -> tuple[Marker, rclone.Outcome]:
            # Each attempt has a backup of its own: what an earlier one moved there must not be overwritten.
            nonlocal tag
            opened, tag = _open_marker(run, mapping, sink, location, site)
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
            )
            binds = sink.binds([location, backup], site.uid)
            jail = Jail(volume, site.uid, writable=False, binds=tuple(binds))
            return opened, rclone.run(arguments, sink, jail, site.lock, on_progress=_watch(run, site, keep_going))

        marker, outcome = _persist(attempt, run, keep_going)
        failpoints.reach("save.uploaded")
        with _planted(mapping):
            again = volumes.descend(volume, relative)
        moved = os.fstat(again).st_ino != os.fstat(root).st_ino
        os.close(again)
        if moved:
            raise errors.PathPlanted(f"{mapping.container_path} was replaced while it was saved.")
        changed = 0 if site.is_stopped else _changed_since(before, root, mapping)
    finally:
        os.close(root)
    asked = [_savers.submit(backups.found, sink, str(one["backup"])) for one in marker.undo]
    names = dict(sink.names(location))
    kept = [answer.result() for answer in asked]
    manifest = _manifest(names, patterns.matcher(mapping.pattern), before, marker.manifest, exact=deletes)
    _check_complete(location, before, manifest, exact=deletes, is_stopped=site.is_stopped)
    if mapping.mode == Mode.SYNC and not deletes:
        run.deletes = "withheld"
    run.deleted += outcome.progress.deletes
    closed = replace(marker, state="closed", saved_at=_now(), manifest=manifest, undo=[])
    closed = listings.attach(sink, closed, str(run.pk), names)
    _put_marker(mapping, sink, location, closed, tag)
    failpoints.reach("save.marker-closed")
    listings.forget(sink, marker, closed)
    with recording():
        SavedState.objects.update_or_create(
            tenant_id=site.tenant_id,
            place=_place(sink),
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
        backups.record(site.tenant_id, mapping, _place(sink), location, [one for one in kept if one])
        if deletes and before.files == 0 and marker.manifest.files:
            emit(
                "pool.warning", pool_id=site.pool_id, tenant_id=site.tenant_id, container_id=site.container_id,
                code="emptied", specId=mapping.spec_id,
                detail=f"The tenant has emptied {mapping.container_path}; its {marker.manifest.files} files are kept as"
                " a backup.",
            )  # fmt: skip
    more = {"changedDuring": changed} if changed else {}
    _add_step(run, mapping, location, before.files, before.bytes, transferred=outcome.progress.bytes, **more)


def _count(run: SyncRun, mapping: SyncMapping, site: Site, sink: Sink, root: int) -> volumes.Census:
    """The census before a save. Raises Unsaveable, TooLarge: then nothing has been sent."""
    room = MAX_KEY_BYTES - len(f"{backups.location_of(mapping.location(site.tenant_id), str(run.pk), 99)}/".encode())
    max_files, max_bytes = settings.BOILERHOUSE_MAX_SAVE_FILES, settings.BOILERHOUSE_MAX_SAVE_BYTES
    found = volumes.census(
        root,
        patterns.matcher(mapping.pattern),
        settings.BOILERHOUSE_MAX_FILE_BYTES,
        grant=site.is_stopped,
        max_path_bytes=room,
        max_files=max_files,
        all_mtimes=not sink.keeps_mtimes,
    )
    run.skipped = [*run.skipped, *(f"{mapping.container_path}/{_shown(path)}" for path in found.skipped)][:100]
    if found.is_cut:
        raise errors.TooLarge(f"{mapping.container_path} holds more than {max_files} files.")
    if found.bytes > max_bytes:
        raise errors.TooLarge(f"{mapping.container_path} holds {found.bytes} bytes; {max_bytes} is the limit.")
    if found.unsaveable:
        named = "; ".join(f"{_shown(path)}: {why}" for path, why in found.unsaveable[:5])
        raise errors.Unsaveable(f"{len(found.unsaveable)} things cannot be saved: {named}")
    return found


def _changed_since(before: volumes.Census, root: int, mapping: SyncMapping) -> int:
    """How many files a live tenant wrote, made or removed during its save: each of them may be torn (hazard C12)."""
    now = volumes.census(root, patterns.matcher(mapping.pattern), sys.maxsize, max_files=2 * before.files + 1000)
    return len(dict(before.seen.items() ^ now.seen.items()))


def _may_delete(mapping: SyncMapping, site: Site, location: str) -> bool:
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


def _open_marker(run: SyncRun, mapping: SyncMapping, sink: Sink, location: str, site: Site) -> tuple[Marker, str]:
    """Say at the sink that a save is under way; the manifest stays that of the last completed one.

    Returns the marker and what ``_put_marker`` needs to close it.
    """
    has_objects = _savers.submit(sink.has_objects, location, RUN_DEADLINE_S)
    known, tag = _read_marker(sink, location, RUN_DEADLINE_S)
    _check_unchanged(known, mapping, site)
    base = known or _first_marker(sink, location, site, dict(sink.names(location)) if has_objects.result() else {})
    attempt = len(base.undo) + 1
    backup = backups.location_of(location, str(run.pk), attempt)
    opened = replace(
        base,
        tenant_id=site.tenant_id,
        deployment=deployment_id(),
        generation=site.generation,
        run_id=str(run.pk),
        state="open",
        undo=[*base.undo, {"runId": str(run.pk), "attempt": attempt, "backup": backup}],
    )
    return opened, _put_marker(mapping, sink, location, opened, tag)


def _put_marker(mapping: SyncMapping, sink: Sink, location: str, marker: Marker, tag: str) -> str:
    """Write the marker, where the sink can only if nobody else has since ``tag`` (hazard C9); returns its new tag."""
    if mapping.spec.sink_health.get("conditionalWrites"):
        return sink.put_if(marker_key(location), marker.dump(), tag)
    sink.put(marker_key(location), marker.dump())
    return ""


def _check_unchanged(known: Marker | None, mapping: SyncMapping, site: Site) -> None:
    """Raise RemoteChanged unless the marker is what this claim's restore saw, or this claim's own."""
    if known is not None and known.generation == site.generation:
        return
    if known is not None and known.generation > site.generation:
        raise errors.RemoteChanged(f"A newer claim (generation {known.generation}) has saved there.")
    rows = MappingRestore.objects.filter(tenant_id=site.tenant_id, generation=site.generation, mapping=mapping)
    seen = rows.values_list("marker_run", flat=True).first()
    if seen is not None and seen != (known.run_id if known else ""):
        raise errors.RemoteChanged("What was restored when this claim began has been replaced since.")


def _first_marker(sink: Sink, location: str, site: Site, names: dict[str, int]) -> Marker:
    """What an interrupted first save is taken back to: whatever was there before it (hazard C2: adopted)."""
    marker = Marker(
        tenant_id=site.tenant_id,
        deployment=deployment_id(),
        location=location,
        generation=site.generation,
        run_id="",
        state="closed",
        saved_at="",
        manifest=Manifest(files=len(names), bytes=sum(names.values())),
    )
    return listings.attach(sink, marker, "adopted", names)


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


def _check_complete(location: str, local: volumes.Census, far: Manifest, *, exact: bool, is_stopped: bool) -> None:
    if not is_stopped:
        return  # a live tenant goes on writing; the listing is the truth
    same = (local.files, local.bytes) == (far.files, far.bytes)
    if not (same if exact else far.files >= local.files and far.bytes >= local.bytes):
        raise errors.Incomplete(
            f"{location} holds {far.files} files, {far.bytes} bytes after a save of"
            f" {local.files} files, {local.bytes} bytes."
        )


def _shown(path: str) -> str:
    return path.encode("utf-8", "backslashreplace").decode()


def _now() -> str:
    return timezone.now().isoformat().replace("+00:00", "Z")
