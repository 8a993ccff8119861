"""The save of a running container: a snapshot is taken, and that is sent."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import partial

from django.conf import settings

from boilerhouse.core import failpoints
from pools import volumes
from pools.file_names import plain, show
from syncing import errors, listings, rclone, records, snapshots
from syncing.attempts import Attempt
from syncing.mapping_saves import MappingSave
from syncing.models import SyncSpec
from syncing.save_steps import Binds, Sent, begin_attempt, check_in_place, complete, count, replaced
from syncing.sink_checks import read_marker
from syncing.sinks import RUN_DEADLINE_S
from syncing.targets import planted

DELETED_AT_ONCE = 256
"""So often a save that deletes much asks whether it may go on."""
CHECK_EVERY_S = 1.0


def save_live(saves: list[MappingSave], spec: SyncSpec) -> None:
    """All mappings of a spec are saved as they were at one moment, if the spec does not say otherwise."""
    target, keep_going = saves[0].target, saves[0].keep_going
    parts = [_part_of(save) for save in saves]
    with snapshots.snapshot_of(target, parts, spec.quiesce, keep_going):
        for save, part in zip(saves, parts, strict=True):
            if part.is_missing:
                save.note_missing()
            elif part.failure is None:
                _save_part(save, part)
    for part in parts:
        if part.failure:
            raise part.failure


def _part_of(save: MappingSave) -> snapshots.Part:
    recorded, suspects = _recorded(save)
    volume, relative = save.place
    return snapshots.Part(
        save.mapping, volume, relative, recorded, suspects, count=lambda root, until: count(save, root, until)
    )


def _recorded(save: MappingSave) -> tuple[dict[str, volumes.Stamp] | None, frozenset[str]]:
    """What the sink holds for sure of this mapping, and what an unfinished save of it may have touched there."""
    marker = read_marker(save.sink, save.location, RUN_DEADLINE_S)[0]
    if marker is None:
        return None, frozenset()
    recorded = records.load(save.target, save.mapping, save.sink, save.location, marker.saved_at)
    if recorded is None or not marker.undo:
        return recorded, frozenset()
    try:
        listed = listings.read(save.sink, marker)
    except errors.Incomplete:
        return None, frozenset()  # lost at the sink: this save writes a new one
    touched = {name for name, _ in dict(save.sink.names(save.location)).items() ^ listed.items()}
    for attempt in marker.undo:
        touched |= {name for name, _ in save.sink.names(str(attempt["backup"]))}
    return recorded, frozenset(map(plain, touched))


def _save_part(save: MappingSave, part: snapshots.Part) -> None:
    local = part.census

    def send() -> Sent:
        attempt, binds = begin_attempt(save, local, part.copied.keys() | part.direct)
        sent = 0
        if part.copied:
            arguments = rclone.upload(
                save.sink, save.location, [], deletes=False, inside="", backup=attempt.backup, paths=part.copied
            )
            sent += save.send(arguments, part.tree, binds, part.size).progress.bytes
        if part.direct:
            sent += _send_direct(save, part, attempt.backup, binds)
        deleted = _delete_surplus(save, local, attempt) if save.deletes else 0
        return Sent(attempt, sent, deleted)

    sent = save.persist(send, is_fixed=not part.direct)
    failpoints.reach("save.uploaded")
    saved_at = complete(save, local, sent, torn=part.torn, snapshot=part.statistics)
    records.store(save.target, save.mapping, save.sink, save.location, saved_at, part.settled())


def _send_direct(save: MappingSave, part: snapshots.Part, backup: str, binds: Binds) -> int:
    """Send the files that there was no room to copy, and have the census say what was sent. Raises FileChanging."""
    before = snapshots.still(part.root, sorted(part.direct), writes_out=True)
    for path in part.direct - before.keys():
        part.census.correct(path, None)
    part.direct &= before.keys()
    listed = part.tree.with_name(f"names-{save.mapping.pk}")
    with snapshots.needs_room():
        listed.write_bytes(b"".join(os.fsencode(path) + b"\0" for path in before))
        listed.chmod(0o644)
    # The tenant works: what stands at the mapping's path may be a link by the time that rclone begins.
    place = part.tree.with_name(f"source-{save.mapping.pk}")
    with snapshots.needs_room():
        place.mkdir(exist_ok=True, mode=0o700)
    arguments = rclone.upload_named(save.sink, save.location, inside="", backup=backup, paths=before)
    failure: errors.SyncFailed | None = None
    sent = 0
    try:
        size = sum(stamp.size for stamp in before.values())
        visible, check = [*binds, (listed, rclone.NAMES)], _Unchanged(part, before)
        sent = save.send(arguments, place, visible, size, partial(_open_again, part), check).progress.bytes
    except errors.TransferBroke as error:
        failure = error  # what changes while it is sent breaks its transfer
    check_in_place(save.mapping, part.volume, part.relative, part.root)
    _check_unchanged(part, before, failure)
    if failure:
        raise failure
    for path, stamp in before.items():
        if part.census.stamps[path] != stamp:
            part.statistics["pointInTime"] = False
        part.census.correct(path, stamp)
    return sent


def _check_unchanged(part: snapshots.Part, before: dict[str, volumes.Stamp], cause: Exception | None = None) -> None:
    after = snapshots.still(part.root, list(before))
    if changed := [path for path, stamp in before.items() if after.get(path) != stamp]:
        raise errors.FileChanging(
            f"{show(changed[0])} changed while it was sent. Copies of changed files may take at most"
            f" {settings.BOILERHOUSE_SNAPSHOT_MAX_BYTES} bytes (BOILERHOUSE_SNAPSHOT_MAX_BYTES) and must leave"
            f" {settings.BOILERHOUSE_DISK_FLOOR_MB} MB of the node's disk free, so it could not be copied."
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


def _delete_surplus(save: MappingSave, local: volumes.Census, attempt: Attempt) -> int:
    """Move what the sink has and the container no longer has into the attempt's backup; return how many."""
    matches, names = save.matches, set(map(plain, local.stamps))
    surplus = [name for name in attempt.names() if (matches is None or matches(name)) and plain(name) not in names]
    for begin in range(0, len(surplus), DELETED_AT_ONCE):
        if begin and not save.keep_going():
            raise errors.TransferCancelled
        attempt.put_aside(surplus[begin : begin + DELETED_AT_ONCE])
    return len(surplus)


def _open_again(part: snapshots.Part) -> int:
    """The mapping's directory, open, if it is still the one that was looked at. Raises PathPlanted."""
    try:
        with planted(part.mapping):
            again = volumes.descend(part.volume, part.relative)
    except FileNotFoundError as error:
        raise replaced(part.mapping) from error
    if os.fstat(again).st_ino != os.fstat(part.root).st_ino:
        os.close(again)
        raise replaced(part.mapping)
    return again
