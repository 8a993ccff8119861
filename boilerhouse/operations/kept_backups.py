"""Backups that are taken on a page: files in the data directory, of which the newest are kept."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from django.utils import timezone

from boilerhouse.core import audit
from boilerhouse.core.deployment import data_dir
from boilerhouse.core.errors import Conflict, Failed
from boilerhouse.core.events import recording
from boilerhouse.operations import archives

KEPT = 10
PATTERN = "boilerhouse-*.zip"
_one_at_a_time = threading.Lock()


class BackupRuns(Conflict):
    """Another backup is being written. Wait until it has ended."""

    code = "backup_runs"


class NotWritten(Failed):
    """The backup could not be written."""

    code = "backup_not_written"


@dataclass(frozen=True, slots=True)
class KeptBackup:
    name: str
    size_bytes: int
    taken_at: datetime


def directory() -> Path:
    return data_dir() / "backups"


def all_backups() -> list[KeptBackup]:
    """The newest first. Raises OSError."""
    if not directory().is_dir():
        return []
    files = [(path.name, path.stat()) for path in directory().glob(PATTERN)]
    rows = [KeptBackup(name, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC)) for name, status in files]
    return sorted(rows, key=lambda row: row.taken_at, reverse=True)


def take() -> KeptBackup:
    """Write a backup beside the earlier ones, and delete all but the newest. Raises BackupRuns, NotWritten."""
    if not _one_at_a_time.acquire(blocking=False):
        raise BackupRuns
    try:
        path = directory() / f"boilerhouse-{timezone.now():%Y%m%d-%H%M%S}.zip"
        try:
            directory().mkdir(mode=0o700, exist_ok=True)
            manifest = archives.write(path, lambda _: None)
            backup = all_backups()[0]
            for old in all_backups()[KEPT:]:
                (directory() / old.name).unlink(missing_ok=True)
        except OSError as error:
            raise NotWritten(f"{path} could not be written: {error.strerror or error}.") from error
        with recording():
            after = {"file": str(path), "bytes": backup.size_bytes, "rows": sum(manifest.rows.values())}
            audit.record("backup.take", path.name, after=after)
        return backup
    finally:
        _one_at_a_time.release()
