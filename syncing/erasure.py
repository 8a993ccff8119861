"""Erases one tenant's state at a spec's sink: saved files, markers and listings, backups.

Objects are deleted before the marker that describes them: after an interruption, the next restore finds an incomplete
save and refuses it, instead of adopting half of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from boilerhouse.process import stalls
from syncing import errors, places
from syncing.locations import marker_key
from syncing.markers import Marker
from syncing.models import Backup, SavedState, SyncRun, SyncSpec
from syncing.sinks import RUN_DEADLINE_S, Sink


def traces(tenant_id: str) -> set[str]:
    """The ids of specs that have saved state of the tenant, as far as recorded here."""
    ids = set(SyncRun.objects.filter(tenant_id=tenant_id).values_list("spec_id", flat=True))
    ids |= set(Backup.objects.filter(tenant_id=tenant_id).values_list("spec_id", flat=True))
    saved = SavedState.objects.filter(tenant_id=tenant_id, mapping__isnull=False)
    return ids | set(saved.values_list("mapping__spec_id", flat=True))


def out_of_reach(tenant_id: str, specs: Iterable[SyncSpec]) -> list[str]:
    """Recorded locations of the tenant's state that no sink of ``specs`` contains."""
    names = {name for spec in specs for name in places.names_of(spec)}
    saved = SavedState.objects.current().filter(tenant_id=tenant_id).exclude(place__in=names)
    remaining = Backup.objects.filter(tenant_id=tenant_id).exclude(place__in=names)
    rows = [*saved.values_list("place", "location"), *remaining.values_list("place", "backup")]
    return [f"{location} at {place}" for place, location in rows]


def erase(spec: SyncSpec, tenant_id: str, keep_going: Callable[[], bool]) -> list[dict[str, Any]]:
    """Afterwards the spec's sink has nothing of the tenant; returns a step per location. Can be repeated.

    Raises SyncFailed.
    """
    with stalls.while_going(keep_going, errors.TransferCancelled):
        return _erase(spec, tenant_id, keep_going)


def _erase(spec: SyncSpec, tenant_id: str, keep_going: Callable[[], bool]) -> list[dict[str, Any]]:
    sink, steps = places.sink_of(spec), []
    names = places.names_of(spec)
    rows = SavedState.objects.filter(tenant_id=tenant_id, place__in=names)
    locations = set(rows.values_list("location", flat=True))
    locations |= {mapping.location(tenant_id) for mapping in spec.mappings.all() if mapping.uploads}
    for location in sorted(locations):
        if not keep_going():
            raise errors.TransferCancelled
        steps.append({"location": location, "erased": _erase_location(sink, location)})
        rows.filter(location=location).delete()
    backups = Backup.objects.filter(tenant_id=tenant_id, place__in=names)
    for backup in backups:
        if not keep_going():
            raise errors.TransferCancelled
        steps.append({"location": backup.backup, "erased": _empty(sink, backup.backup)})
        backup.delete()
    return steps


def _erase_location(sink: Sink, location: str) -> int:
    content, marker = sink.get(marker_key(location), RUN_DEADLINE_S), None
    if content is not None:
        try:
            marker = Marker.load(content)
        except ValueError:
            marker = None  # unreadable for us, but to be erased
    erased = _empty(sink, location)
    if marker is not None:
        erased += sum(_empty(sink, str(attempt["backup"])) for attempt in marker.undo)
        if marker.listing:
            sink.delete(marker.listing)
    sink.delete(marker_key(location))
    return erased


def _empty(sink: Sink, location: str) -> int:
    count = sum(1 for _ in sink.names(location))
    sink.delete_all(location)
    if any(True for _ in sink.names(location)):
        raise errors.SinkUnreliable(f"The sink still has objects at {location} after they were deleted.")
    sink.tidy(location)
    return count
