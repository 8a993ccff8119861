"""Opens and closes the marker around a save, and refuses a save if another one has changed it (hazards.md#c1, #c8,
#c9)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from boilerhouse.core.deployment import deployment_id
from syncing import backups, errors, listings
from syncing.attempts import Attempt
from syncing.locations import marker_key
from syncing.mapping_saves import MappingSave
from syncing.markers import Manifest, Marker
from syncing.models import MappingRestore, SyncMapping
from syncing.sink_checks import read_marker
from syncing.sinks import RUN_DEADLINE_S, Sink
from syncing.targets import TransferTarget

savers = ThreadPoolExecutor(16, thread_name_prefix="saves")
"""Separate from other requests: a sink that hangs during saves must not delay claims."""


def open_marker(save: MappingSave) -> Attempt:
    """Record at the sink that a save is in progress; the manifest stays that of the last complete one."""
    sink, location, target, run = save.sink, save.location, save.target, save.run
    has_objects = savers.submit(sink.has_objects, location, RUN_DEADLINE_S)
    previous, tag = read_marker(sink, location, RUN_DEADLINE_S)
    check_unchanged(previous, save.mapping, target)
    base = previous or _first_marker(sink, location, target, dict(sink.names(location)) if has_objects.result() else {})
    attempt = len(base.undo) + 1
    backup = backups.location_of(location, str(run.pk), attempt)
    opened = replace(
        base,
        tenant_id=target.tenant_id,
        deployment=deployment_id(),
        generation=target.generation,
        run_id=str(run.pk),
        state="open",
        undo=[*base.undo, {"runId": str(run.pk), "attempt": attempt, "backup": backup}],
    )
    return Attempt(sink, location, opened, put_marker(save, opened.dump(), tag))


def put_marker(save: MappingSave, content: bytes, tag: str) -> str:
    """Write the marker and return its new tag; if the sink can, only if it is unchanged since ``tag``
    (hazards.md#c9)."""
    if save.mapping.spec.sink_health.get("conditionalWrites"):
        return save.sink.put_if(marker_key(save.location), content, tag)
    save.sink.put(marker_key(save.location), content)
    return ""


def check_unchanged(marker: Marker | None, mapping: SyncMapping, target: TransferTarget) -> None:
    """Raise RemoteChanged unless the marker is the one that this claim's restore read, or this claim's own."""
    if marker is not None and marker.generation == target.generation:
        return
    if marker is not None and marker.generation > target.generation:
        raise errors.RemoteChanged(f"A newer claim (generation {marker.generation}) has saved to this location.")
    rows = MappingRestore.objects.filter(tenant_id=target.tenant_id, generation=target.generation, mapping=mapping)
    marker_run = rows.values_list("marker_run", flat=True).first()
    if marker_run is not None and marker_run != (marker.run_id if marker else ""):
        raise errors.RemoteChanged("The state that this claim restored has been replaced since.")


def _first_marker(sink: Sink, location: str, target: TransferTarget, names: dict[str, int]) -> Marker:
    """What an interrupted first save is undone to: whatever existed before it (hazards.md#c2: adopted)."""
    marker = Marker(
        tenant_id=target.tenant_id,
        deployment=deployment_id(),
        location=location,
        generation=target.generation,
        run_id="",
        state="closed",
        saved_at="",
        manifest=Manifest(files=len(names), bytes=sum(names.values())),
    )
    return listings.attach(sink, marker, "adopted", names)
