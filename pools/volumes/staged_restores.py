"""Staged files of restores, kept so that the next attempt, worker or claim does not fetch them again.

A note beside each staging directory, only on the host, identifies its content: ``subject`` is the mapping's location,
``key`` the save that is restored. When a claim fails, its staged files are moved to
``<data>/staged/<tenant>/<subject>/``, and from there to the staging of that tenant's next container. Only root can see
them there, no container sees them before, and everything happens under the container's lock.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import UUID

import structlog
from django.conf import settings

from boilerhouse.core import deployment
from boilerhouse.core.errors import Failed
from boilerhouse.process import processes, stalls
from boilerhouse.process.steps import each
from pools.spec import Owner
from pools.volumes.paths import home as home_of
from pools.volumes.paths import staging_dir
from pools.volumes.removal import destroy
from pools.volumes.staging import new_staging

log = structlog.get_logger(__name__)

COPY_S = 20
"""Between two file systems, the clean-up of a failed claim copies for at most this long, and keeps what was copied."""
_LEFT_OVER = re.compile(r"\.[0-9a-f]{1,8}\.partial\Z")
"""The suffix of a file that rclone is still writing; a tenant's own file with this suffix is fetched again."""


@dataclass(frozen=True, slots=True)
class Note:
    """The content of a staging directory, or of one that was kept."""

    tenant_id: str
    subject: str
    key: str
    boot_id: str = ""
    """After a crash of the host, it is unknown which bytes have reached the disk."""
    planted: tuple[int, int] | None = None
    """Files and bytes, once they have been moved into the volume."""


def note_of(tenant_id: str, subject: str, key: str) -> Note:
    return Note(tenant_id, subject, key, processes.boot_id())


def open_staging(container_id: UUID, owner: Owner, name: str, note: Note | None) -> Path:
    """The container's staging directory of this name, owned by its user, with the files of the same save that are
    already there.

    Without a note it is emptied.
    """
    path, at = staging_dir(container_id) / name, _note_path(container_id, name)
    if note is not None and path.is_dir() and _read(at) == note:
        _give(path, owner)
        return path
    at.unlink(missing_ok=True)
    new_staging(container_id, owner, name)
    if note is not None:
        path.rmdir()
        _write(at, note)
        if _take(note, path):
            _give(path, owner)
        else:
            path.mkdir(mode=0o700)
            os.chown(path, *owner)
    return path


def count(path: Path) -> tuple[int, int]:
    """How many complete files and bytes are in a staging directory; incomplete files are deleted."""
    files = size = 0
    for file in _files(path):
        if _LEFT_OVER.search(file.name):
            os.unlink(file)
        else:
            files, size = files + 1, size + file.lstat().st_size
    return files, size


def close(container_id: UUID, name: str) -> None:
    """Record that staged files are being changed and moved; after an interruption, they are fetched again."""
    _note_path(container_id, name).unlink(missing_ok=True)


def mark_planted(container_id: UUID, name: str, note: Note, files: int, size: int) -> None:
    """Record that the files are in the volume, so that a resumed claim does nothing for them."""
    _write(_note_path(container_id, name), Note(note.tenant_id, note.subject, note.key, note.boot_id, (files, size)))


def planted(container_id: UUID, name: str, note: Note) -> tuple[int, int] | None:
    """Files and bytes of this save that are already in the volume; None if it was not moved in."""
    stored = _read(_note_path(container_id, name))
    if stored is None or stored.planted is None:
        return None
    is_same = (stored.tenant_id, stored.subject, stored.key) == (note.tenant_id, note.subject, note.key)
    return stored.planted if is_same else None


def _note_path(container_id: UUID, name: str) -> Path:
    return home_of(container_id) / "notes" / f"{name}.json"


def _give(path: Path, owner: Owner) -> None:
    stalls.run(["chown", "-R", "--no-dereference", f"{owner.uid}:{owner.gid}", "--", str(path)])


def directory() -> Path:
    return deployment.data_dir() / "staged"


def put_aside(container_id: UUID, tenant_id: str) -> int:
    """Keep the staged files of the container, which is about to be wiped, for this tenant; return how many.

    The caller holds the container's lock.
    """
    position = 0
    for at in sorted((home_of(container_id) / "notes").glob("*.json")):
        note, path = _read(at), staging_dir(container_id) / at.stem
        is_kept = note is not None and note.planted is None and note.tenant_id == tenant_id
        if note is None or not is_kept or not settings.BOILERHOUSE_STAGED_MAX_BYTES or not path.is_dir():
            continue
        files, size = count(path)
        if files and note.boot_id == processes.boot_id():
            close(container_id, at.stem)
            _keep(note, path)
            log.info("staging directory moved aside", tenant=tenant_id, files=files, bytes=size)
            position += 1
    if position:
        tidy()
    return position


def _keep(note: Note, source: Path) -> None:
    home = _home_of(note)
    destroy(home)
    home.mkdir(parents=True, mode=0o700)
    try:
        os.rename(source, home / "files")
    except OSError:
        _copy_some(source, home / "files")
    os.chown(home / "files", 0, 0)
    _write(home / "note.json", note)


def _copy_some(source: Path, target: Path) -> None:
    """Copy complete files, with their times, for ``COPY_S`` seconds at most."""
    until = time.monotonic() + COPY_S
    target.mkdir(mode=0o700)
    for file in _files(source):
        if time.monotonic() > until or shutil.disk_usage(target).free < file.lstat().st_size + _floor_bytes():
            return
        copy = target / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        shutil.copy2(file, copy, follow_symlinks=False)
        stalls.moved()


def _take(note: Note, target: Path) -> bool:
    """Move kept files of the same save to ``target``, which must not exist; return whether there were any.

    Kept files of another save of the same location are deleted.
    """
    home = _home_of(note)
    if _read(home / "note.json") != note:
        destroy(home)
        return False
    mine = home.with_name(f"{home.name}.taken")
    destroy(mine)
    try:
        home.rename(mine)  # from here on, no clean-up deletes it
    except FileNotFoundError:
        return False
    try:
        os.rename(mine / "files", target)
    except OSError:
        target.mkdir(mode=0o700)
        try:
            stalls.run(["cp", "-rP", "--preserve=mode,timestamps", "--", f"{mine / 'files'}/.", str(target)])
        except Failed as error:  # as on a full disk: the restore reports it itself
            log.warning("staging directory not copied", detail=error.detail)
    destroy(mine)
    return True


def forget(tenant_id: str) -> None:
    """Delete all kept files of a tenant's unfinished restores."""
    destroy(directory() / _name(tenant_id))


def tidy() -> int:
    """Delete what is too old, or exceeds the limit or the disk, oldest first; return how many were deleted."""
    now, floor = time.time(), 2 * _floor_bytes()
    paths = sorted((path for path in directory().glob("*/*")), key=lambda path: -path.stat().st_mtime)
    total = 0

    def bound(home: Path) -> int:
        nonlocal total
        total += sum(file.lstat().st_blocks * 512 for file in _files(home))
        is_old = home.stat().st_mtime < now - settings.BOILERHOUSE_STAGED_RETENTION_S
        is_low = shutil.disk_usage(directory()).free < floor
        if not (is_old or is_low or total > settings.BOILERHOUSE_STAGED_MAX_BYTES):
            return 0
        destroy(home)
        return 1

    deleted = each(paths, bound)
    for tenant in directory().glob("*"):
        with contextlib.suppress(OSError):
            tenant.rmdir()
    return deleted


def _floor_bytes() -> int:
    return int(settings.BOILERHOUSE_DISK_FLOOR_MB) << 20


def _home_of(note: Note) -> Path:
    return directory() / _name(note.tenant_id) / _name(note.subject)


def _name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def _files(root: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(root):
        for name in names:
            yield Path(parent, name)


def _read(path: Path) -> Note | None:
    try:
        note = Note(**json.loads(path.read_text()))
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return None
    return Note(**{**asdict(note), "planted": (note.planted[0], note.planted[1])}) if note.planted else note


def _write(path: Path, note: Note) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(asdict(note)))
    draft.rename(path)
