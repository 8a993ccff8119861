"""Backups: what saves overwrote or deleted, kept at the sink for a while, outside all locations (hazards.md#c6, #c7).

``.boilerhouse-trash/<deployment>/<UTC stamp>-<run>-<attempt>/<location>/…``. Only the directory's name gives the age:
the files' own times are the tenant's and may be anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog

from boilerhouse.core import deployment_settings
from boilerhouse.core.deployment import deployment_id
from syncing import places
from syncing.locations import BACKUP_ROOT, marker_key
from syncing.markers import Marker
from syncing.models import Backup, SyncMapping, SyncSpec
from syncing.sinks import RUN_DEADLINE_S, Sink

log = structlog.get_logger(__name__)

STAMP = "%Y%m%dT%H%M%SZ"


def location_of(place: str, run_id: str, attempt: int) -> str:
    """The backup location of one attempt of one run for the location ``place``."""
    return f"{BACKUP_ROOT}/{deployment_id()}/{datetime.now(UTC).strftime(STAMP)}-{run_id}-{attempt}/{place}"


@dataclass(frozen=True, slots=True)
class StoredFiles:
    """What one attempt of a save moved to its backup."""

    location: str
    files: int
    bytes: int


def stored_at(sink: Sink, location: str) -> StoredFiles | None:
    """The content of a backup's location; None if it is empty."""
    sizes = [size for _, size in sink.names(location)]
    if not sizes:
        sink.tidy(location)
        return None
    return StoredFiles(location, len(sizes), sum(sizes))


def record(tenant_id: str, mapping: SyncMapping, place: str, location: str, stored: list[StoredFiles]) -> None:
    """Record the backups of a save, so that they can be listed and restored."""
    Backup.objects.bulk_create(
        Backup(
            tenant_id=tenant_id,
            spec=mapping.spec,
            place=place,
            location=location,
            backup=backup.location,
            container_path=mapping.container_path,
            files=backup.files,
            bytes=backup.bytes,
        )
        for backup in stored
    )


def expire(spec: SyncSpec) -> int:
    """Delete this deployment's backups in the spec's place past their retention, except those of an unfinished save.

    Returns how many. Raises SyncFailed.
    """
    sink, names = places.sink_of(spec), places.names_of(spec)
    old = datetime.now(UTC) - timedelta(seconds=deployment_settings.current().retention_s["backups"])
    expired = 0
    for folder in sink.folders(f"{BACKUP_ROOT}/{deployment_id()}"):
        try:
            created_at = datetime.strptime(folder.rpartition("/")[2].partition("-")[0], STAMP).replace(tzinfo=UTC)
        except ValueError:
            continue  # its name is not one of ours
        if created_at < old and not _is_needed(sink, folder):
            sink.delete_all(folder)
            Backup.objects.filter(place__in=names, backup__startswith=f"{folder}/").delete()
            expired += 1
    if expired:
        log.info("backups expired", place=sink.place_name, count=expired)
    return expired


def _is_needed(sink: Sink, folder: str) -> bool:
    """Whether an open marker still refers to it, which may last until the tenant returns."""
    name = next((name for name, _ in sink.names(folder)), "")
    parts = name.split("/")
    for depth in range(1, len(parts)):
        content = sink.get(marker_key("/".join(parts[:depth])), RUN_DEADLINE_S)
        if content is None:
            continue
        marker = Marker.load(content)
        return marker.state == "open" and any(str(step["backup"]).startswith(f"{folder}/") for step in marker.undo)
    return False
