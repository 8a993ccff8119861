"""Save: what a release, a timer or somebody's wish keeps.

It runs under the container's file lock, which rclone inherits, and deletes at the far end only what this generation
restored first (P5).
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Self

from django.conf import settings

from boilerhouse.core import clock, failpoints, stalling
from boilerhouse.core.events import emit, recording
from pools import volumes
from pools.names import plain, show
from syncing import (
    backups,
    completeness,
    conflicts,
    errors,
    fitting,
    listings,
    patterns,
    places,
    rclone,
    records,
    services,
    snapshots,
    unhashed,
)
from syncing.jail import Jail
from syncing.markers import Manifest, Marker
from syncing.marking import open_marker, put_content, savers
from syncing.models import MappingRestore, SavedState, SyncMapping, SyncRun, SyncSpec
from syncing.runs import ProgressReporter, add_step, persist, running
from syncing.sinks import RUN_DEADLINE_S, Sink
from syncing.sites import Site, place_of, planted
from syncing.states import Direction, Mode, Trigger
from syncing.surveys import read_marker

DELETED_AT_ONCE = 256
"""So often a save that deletes much asks whether it may go on."""
CHECK_EVERY_S = 1.0
MAX_KEY_BYTES = 1024
"""What object stores take as a key; the longest that a save makes is that of a backup."""


def save(
    site: Site,
    specs: list[SyncSpec],
    trigger: Trigger,
    keep_going: Callable[[], bool],
    run_of: Callable[[SyncSpec], SyncRun | None] = lambda _spec: None,
) -> None:
    """Upload every upload mapping of ``specs``. Raises the first SyncFailed; what was saved before stays saved.

    A stopped container is read as it lies there. Of a running one a snapshot is taken, and that is sent.
    """
    failure: errors.SyncFailed | None = None
    for spec in specs:
        mappings = [mapping for mapping in spec.mappings.all() if mapping.uploads]
        for mapping in mappings:
            mapping.spec = spec
        try:
            going = stalling.while_going(keep_going, errors.TransferCancelled)
            with running(spec, site, Direction.UPLOAD, trigger, run_of(spec)) as run, going:
                sink = places.sink_of(spec)
                saves = [_Save.of(run, mapping, site, sink, keep_going) for mapping in mappings]
                if site.is_stopped:
                    for one in saves:
                        _save_stopped(one)
                elif saves:
                    _save_live(saves, spec)
            services.seen_to_work(spec)
        except errors.SyncFailed as error:
            failure = failure or error
    if failure:
        raise failure


@dataclass(frozen=True, slots=True)
class _Save:
    """One mapping's save within a run."""

    run: SyncRun
    mapping: SyncMapping
    site: Site
    sink: Sink
    keep_going: Callable[[], bool]
    location: str
    deletes: bool
    """Whether it may delete at the sink."""
    reporter: ProgressReporter

    @classmethod
    def of(cls, run: SyncRun, mapping: SyncMapping, site: Site, sink: Sink, keep_going: Callable[[], bool]) -> Self:
        location = mapping.location(site.tenant_id)
        deletes = may_delete(mapping, site, location)
        return cls(run, mapping, site, sink, keep_going, location, deletes, ProgressReporter(run, site))

    def send(
        self,
        arguments: list[str],
        directory: Path,
        binds: list[tuple[Path, str]],
        size: int,
        opens: Callable[[], int] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> rclone.Outcome:
        """Run rclone over what is in ``directory``, or what ``opens`` opens; ``size`` is how much, in bytes.

        ``check`` is called now and then, and raises what ends it.
        """

        def keep_going() -> bool:
            check()
            return self.keep_going()

        jail = Jail(directory, self.site.owner, writable=False, binds=tuple(binds), opens=opens)
        self.reporter.begin_try(*self.reporter.sent)
        return rclone.run(
            arguments, self.sink, jail, self.site.lock, location=self.location, size=size,
            on_progress=self.reporter, keep_going=keep_going,
        )  # fmt: skip

    def persist(self, attempt: Callable[[], _Sent], *, is_fixed: bool) -> _Sent:
        """Where what is sent is fixed, tries go on where the last one stopped, and there are as many as bring a file.

        What goes on changing could keep them busy for ever.
        """
        resumes = self.sink.resumes_saves and is_fixed
        return persist(attempt, self.reporter, self.run, self.keep_going, resumes=resumes)

    def note_missing(self) -> None:
        add_step(self.run, self.mapping, self.location, 0, 0, note="The directory does not exist yet.")


@dataclass(frozen=True, slots=True)
class _Sent:
    """What an attempt has brought to the sink."""

    marker: Marker
    tag: str
    bytes: int
    deleted: int


def _save_stopped(one: _Save) -> None:
    volume, relative = place_of(one.site, one.mapping)
    try:
        with planted(one.mapping):
            root = volumes.descend(volume, relative, create_for=one.site.owner)
    except FileNotFoundError:
        one.note_missing()
        return
    try:
        local = _count(one, root)
        filters = patterns.to_rclone(one.mapping.pattern) if one.mapping.pattern else []

        def attempt() -> _Sent:
            marker, tag, backup, binds = _begin_attempt(one, local, local.seen)
            inside = str(relative) if relative.parts else ""
            arguments = rclone.upload(
                one.sink, one.location, filters, deletes=one.deletes, inside=inside, backup=backup, paths=local.seen
            )
            done = one.send(arguments, volume, binds, local.bytes).progress
            return _Sent(marker, tag, done.bytes, done.deletes)

        sent = one.persist(attempt, is_fixed=True)
        failpoints.reach("save.uploaded")
        _check_in_place(one.mapping, volume, relative, root)
    finally:
        os.close(root)
    _complete(one, local, sent)


def _save_live(saves: list[_Save], spec: SyncSpec) -> None:
    """All mappings of a spec are saved as they were at one moment, if the spec does not say otherwise."""
    site, keep_going = saves[0].site, saves[0].keep_going
    parts = [_part_of(one) for one in saves]
    with snapshots.taken(site, parts, spec.quiesce, keep_going):
        for one, part in zip(saves, parts, strict=True):
            if part.is_missing:
                one.note_missing()
            elif part.failure is None:
                _save_part(one, part)
    for part in parts:
        if part.failure:
            raise part.failure


def _part_of(one: _Save) -> snapshots.Part:
    known, suspects = _known(one)
    volume, relative = place_of(one.site, one.mapping)
    return snapshots.Part(
        one.mapping, volume, relative, known, suspects, count=lambda root, until: _count(one, root, until)
    )


def _known(one: _Save) -> tuple[dict[str, volumes.Stamp] | None, frozenset[str]]:
    """What the sink holds for sure of this mapping, and what an unfinished save of it may have touched there."""
    marker = read_marker(one.sink, one.location, RUN_DEADLINE_S)[0]
    if marker is None:
        return None, frozenset()
    known = records.load(one.site, one.mapping, one.sink, one.location, marker.saved_at)
    if known is None or not marker.undo:
        return known, frozenset()
    try:
        listed = listings.read(one.sink, marker)
    except errors.Incomplete:
        return None, frozenset()  # lost at the sink: this save writes a new one
    touched = {name for name, _ in dict(one.sink.names(one.location)).items() ^ listed.items()}
    for attempt in marker.undo:
        touched |= {name for name, _ in one.sink.names(str(attempt["backup"]))}
    return known, frozenset(map(plain, touched))


def _save_part(one: _Save, part: snapshots.Part) -> None:
    local = part.census

    def attempt() -> _Sent:
        marker, tag, backup, binds = _begin_attempt(one, local, part.copied.keys() | part.direct)
        sent = 0
        if part.copied:
            arguments = rclone.upload(
                one.sink, one.location, [], deletes=False, inside="", backup=backup, paths=part.copied
            )
            sent += one.send(arguments, part.tree, binds, part.size).progress.bytes
        if part.direct:
            sent += _send_direct(one, part, backup, binds)
        deleted = _delete_surplus(one, local, backup) if one.deletes else 0
        return _Sent(marker, tag, sent, deleted)

    sent = one.persist(attempt, is_fixed=not part.direct)
    failpoints.reach("save.uploaded")
    saved_at = _complete(one, local, sent, torn=part.torn, snapshot=part.told)
    records.store(one.site, one.mapping, one.sink, one.location, saved_at, part.settled())


def _send_direct(one: _Save, part: snapshots.Part, backup: str, binds: list[tuple[Path, str]]) -> int:
    """Send the files that there was no room to copy, and have the census say what was sent. Raises FileChanging."""
    before = snapshots.still(part.root, sorted(part.direct), writes_out=True)
    for path in part.direct - before.keys():
        part.census.correct(path, None)
    part.direct &= before.keys()
    listed = part.tree.with_name(f"names-{one.mapping.pk}")
    with snapshots.needs_room():
        listed.write_bytes(b"".join(os.fsencode(path) + b"\0" for path in before))
        listed.chmod(0o644)
    # The tenant works: what stands at the mapping's path may be a link by the time that rclone begins.
    place = part.tree.with_name(f"source-{one.mapping.pk}")
    with snapshots.needs_room():
        place.mkdir(exist_ok=True, mode=0o700)
    arguments = rclone.upload_named(one.sink, one.location, inside="", backup=backup, paths=before)
    failure: errors.SyncFailed | None = None
    sent = 0
    try:
        size = sum(stamp.size for stamp in before.values())
        shown, check = [*binds, (listed, rclone.NAMES)], _Unchanged(part, before)
        sent = one.send(arguments, place, shown, size, partial(_open_again, part), check).progress.bytes
    except errors.TransferBroke as error:
        failure = error  # what changes while it is sent breaks its transfer
    _check_in_place(one.mapping, part.volume, part.relative, part.root)
    _check_unchanged(part, before, failure)
    if failure:
        raise failure
    for path, stamp in before.items():
        if part.census.seen[path] != stamp:
            part.told["pointInTime"] = False
        part.census.correct(path, stamp)
    return sent


def _check_unchanged(part: snapshots.Part, before: dict[str, volumes.Stamp], cause: Exception | None = None) -> None:
    after = snapshots.still(part.root, list(before))
    if changed := [path for path, stamp in before.items() if after.get(path) != stamp]:
        raise errors.FileChanging(
            f"{show(changed[0])} changed while it was sent. Copies of what changed take at most"
            f" {settings.BOILERHOUSE_SNAPSHOT_MAX_BYTES} bytes (BOILERHOUSE_SNAPSHOT_MAX_BYTES) and leave"
            f" {settings.BOILERHOUSE_DISK_FLOOR_MB} MB of the node's disk free; it did not fit."
        ) from cause


@dataclass(slots=True)
class _Unchanged:
    """Ends a transfer of files that lie where their tenant can reach them when one of them has changed.

    It fails then in any case; but a pipe in a file's place may keep rclone waiting, or reading, for ever. Looking takes
    a twentieth of the time at most.
    """

    part: snapshots.Part
    before: dict[str, volumes.Stamp]
    _next: float = 0.0

    def __call__(self) -> None:
        if (began := time.monotonic()) < self._next:
            return
        _check_unchanged(self.part, self.before)
        now = time.monotonic()
        self._next = now + max(CHECK_EVERY_S, 20 * (now - began))


def _delete_surplus(one: _Save, local: volumes.Census, backup: str) -> int:
    """Move what the sink has and the container no longer has into the attempt's backup; return how many."""
    matches, kept = patterns.matcher(one.mapping.pattern), set(map(plain, local.seen))
    surplus = [
        name
        for name, _ in one.sink.names(one.location)
        if (matches is None or matches(name)) and plain(name) not in kept
    ]

    def move(name: str) -> None:
        one.sink.move(f"{one.location}/{name}", f"{backup}/{name}")

    with ThreadPoolExecutor(conflicts.AT_ONCE) as threads:
        for begin in range(0, len(surplus), DELETED_AT_ONCE):
            if begin and not one.keep_going():
                raise errors.TransferCancelled
            for _ in threads.map(move, surplus[begin : begin + DELETED_AT_ONCE]):
                stalling.step()
    return len(surplus)


def _begin_attempt(
    one: _Save, local: volumes.Census, paths: Collection[str]
) -> tuple[Marker, str, str, list[tuple[Path, str]]]:
    """Open the marker and clear what stands in the way of sending the files ``paths``.

    Returns the marker, its tag, the attempt's backup and its binds.
    """
    fitting.check(one.site, one.mapping, local, {})
    doubtful = savers.submit(one.sink.unhashed, one.location)
    # Each attempt has a backup of its own: what an earlier one moved there must not be overwritten.
    marker, tag = open_marker(one.run, one.mapping, one.sink, one.location, one.site)
    failpoints.reach("save.marker-open")
    backup = str(marker.undo[-1]["backup"])
    if not one.deletes:
        fitting.check(one.site, one.mapping, local, conflicts.present(one.sink, one.location, marker))
    conflicts.clear(one.sink, one.location, marker, local, backup)
    unhashed.clear(one.sink, one.location, doubtful.result(), paths, backup)
    return marker, tag, backup, one.sink.binds([one.location, backup], one.site.owner.uid)


def _open_again(part: snapshots.Part) -> int:
    """The mapping's directory, open, if it is still the one that was looked at. Raises PathPlanted."""
    try:
        with planted(part.mapping):
            again = volumes.descend(part.volume, part.relative)
    except FileNotFoundError as error:
        raise _replaced(part.mapping) from error
    if os.fstat(again).st_ino != os.fstat(part.root).st_ino:
        os.close(again)
        raise _replaced(part.mapping)
    return again


def _replaced(mapping: SyncMapping) -> errors.PathPlanted:
    return errors.PathPlanted(f"{mapping.container_path} was replaced while it was saved.")


def _check_in_place(mapping: SyncMapping, volume: Path, relative: PurePosixPath, root: int) -> None:
    with planted(mapping):
        again = volumes.descend(volume, relative)
    moved = os.fstat(again).st_ino != os.fstat(root).st_ino
    os.close(again)
    if moved:
        raise _replaced(mapping)


def _complete(one: _Save, local: volumes.Census, sent: _Sent, *, torn: int = 0, **told: Any) -> str:
    """Check what the sink has now, close the marker and note the save; returns when it was."""
    run, mapping, site, sink, location, deletes = one.run, one.mapping, one.site, one.sink, one.location, one.deletes
    marker = sent.marker
    asked = [savers.submit(backups.found, sink, str(attempt["backup"])) for attempt in marker.undo]
    names = dict(sink.names(location))
    kept = [answer.result() for answer in asked]
    matches = patterns.matcher(mapping.pattern)
    manifest = replace(
        _manifest(names, matches, local, marker.manifest, exact=deletes),
        way=volumes.modes_on_way(*place_of(site, mapping)),
    )
    completeness.check(location, local.sizes(), names, matches, exact=deletes)
    run.skipped = [*run.skipped, *(f"{mapping.container_path}/{_text(path)}" for path in local.skipped)][:100]
    if mapping.mode == Mode.SYNC and not deletes:
        run.deletes = "withheld"
    run.deleted += sent.deleted
    closed = replace(marker, state="closed", saved_at=_now(), manifest=manifest, undo=[])
    closed = listings.attach(sink, closed, str(run.pk), names)
    content = closed.dump()
    put_content(mapping, sink, location, content, sent.tag)
    failpoints.reach("save.marker-closed")
    listings.forget(sink, marker, closed)
    with recording():
        saved = SavedState.objects.current().filter(tenant_id=site.tenant_id, location=location)
        if aliases := places.names_of(mapping.spec) - {sink.place_name}:
            saved.filter(place__in=aliases).delete()
        saved.update_or_create(
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
                "marker_bytes": len(content),
                "saved_at": clock.now(),
            },
        )
        backups.record(site.tenant_id, mapping, sink.place_name, location, [one for one in kept if one])
        if deletes and local.files == 0 and marker.manifest.files:
            emit(
                "pool.warning", pool_id=site.pool_id, tenant_id=site.tenant_id, container_id=site.container_id,
                code="emptied", specId=mapping.spec_id,
                detail=f"The tenant has emptied {mapping.container_path}; its {marker.manifest.files} files are kept as"
                " a backup.",
            )  # fmt: skip
    more = {"changedDuring": torn} if torn else {}
    add_step(run, mapping, location, local.files, local.bytes, transferred=sent.bytes, **more, **told)
    return closed.saved_at


def _count(one: _Save, root: int, until: float = math.inf) -> volumes.Census:
    """The census before a save. Raises Unsaveable, TooLarge: then nothing has been sent; TimeoutError at ``until``."""
    run, mapping, site = one.run, one.mapping, one.site
    room = MAX_KEY_BYTES - len(f"{backups.location_of(mapping.location(site.tenant_id), str(run.pk), 99)}/".encode())
    max_entries, max_bytes = settings.BOILERHOUSE_MAX_SAVE_FILES, settings.BOILERHOUSE_MAX_SAVE_BYTES
    found = volumes.census(
        root,
        patterns.matcher(mapping.pattern),
        settings.BOILERHOUSE_MAX_FILE_BYTES,
        max_path_bytes=room,
        max_entries=max_entries,
        until=until,
    )
    if found.is_cut:
        raise errors.TooLarge(f"{mapping.container_path} holds more than {max_entries} files, links and directories.")
    if found.bytes > max_bytes:
        raise errors.TooLarge(f"{mapping.container_path} holds {found.bytes} bytes; {max_bytes} is the limit.")
    if found.unsaveable:
        named = "; ".join(f"{show(path)}: {why}" for path, why in found.unsaveable[:5])
        raise errors.Unsaveable(f"{len(found.unsaveable)} things cannot be saved: {named}")
    return found


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
        | {p: stamp.mtime_ns for p, stamp in local.seen.items()},
        names=sorted({p for p in last.names if carried(p)} | set(local.names)),
        sparse=sorted({p for p in last.sparse if carried(p)} | set(local.sparse)),
        room=fitting.room_of(sizes, links, empty_dirs),
        is_exact=True,
    )


def _text(path: str) -> str:
    """A path that can be stored and sent, whatever bytes it has."""
    return path.encode("utf-8", "backslashreplace").decode()


def _now() -> str:
    return clock.now().isoformat().replace("+00:00", "Z")
