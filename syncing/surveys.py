"""What the sinks hold for a tenant, asked before anything is touched; an empty answer is not yet a first time (C2)."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from syncing import errors, services
from syncing.locations import marker_key
from syncing.markers import Marker
from syncing.models import SavedState, SyncMapping, SyncSpec
from syncing.sinks import CLAIM_DEADLINE_S, Sink


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


_Asked = tuple[SyncMapping, Sink, str, Future[tuple[Marker | None, str]], Future[bool]]


@dataclass(frozen=True, slots=True)
class Survey:
    """What was asked of the sinks for a tenant, in threads of their own."""

    tenant_id: str
    asked: list[_Asked]

    def is_done(self, within_s: float) -> bool:
        """Whether all sinks have answered, or failed, ``within_s`` seconds from now; returns as soon as they have."""
        futures: list[Future[Any]] = [future for *_, marker, has in self.asked for future in (marker, has)]
        waited = wait(futures, within_s)
        return not waited.not_done

    def answer(self) -> list[Finding]:
        """What the sinks hold; waits for them.

        Raises SyncFailed when a sink does not say, StateMissing and StateMoved when it says nothing but we know of a
        save (hazard C2): an empty answer is a first time only if nothing was ever saved.
        """
        findings = [Finding(m, sink, at, marker.result()[0], has.result()) for m, sink, at, marker, has in self.asked]
        _check_first_times([f for f in findings if f.marker is None and not f.has_objects], self.tenant_id)
        return findings


def begin_survey(pool_id: str, tenant_id: str) -> Survey:
    """Start asking the sinks what they hold for the tenant."""
    return _ask(services.mappings_to_restore(pool_id), tenant_id)


def survey_spec(spec: SyncSpec, tenant_id: str) -> Survey:
    """``begin_survey`` for one given spec."""
    mappings = [mapping for mapping in spec.mappings.all() if mapping.restores]
    for mapping in mappings:
        mapping.spec = spec
    return _ask(mappings, tenant_id)


_askers = ThreadPoolExecutor(8, thread_name_prefix="sinks")


def _ask(mappings: list[SyncMapping], tenant_id: str) -> Survey:
    asked: list[_Asked] = []
    sinks: dict[str, Sink] = {}
    for mapping in mappings:
        if mapping.spec_id not in sinks:
            sinks[mapping.spec_id] = mapping.spec.resolved_sink()
        sink, location = sinks[mapping.spec_id], mapping.location(tenant_id)
        marker = _askers.submit(read_marker, sink, location, CLAIM_DEADLINE_S)
        has_objects = _askers.submit(sink.has_objects, location, CLAIM_DEADLINE_S)
        asked.append((mapping, sink, location, marker, has_objects))
    return Survey(tenant_id, asked)


def read_marker(sink: Sink, location: str, deadline_s: int) -> tuple[Marker | None, str]:
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
    known = list(SavedState.objects.current().filter(tenant_id=tenant_id, files__gt=0).order_by("-saved_at"))
    for finding in silent:
        for saved in known:
            if (saved.place, saved.location) == (finding.sink.place_name, finding.location):
                raise errors.StateMissing(
                    f"{saved.files} files were saved at {finding.location} on {saved.saved_at:%Y-%m-%d %H:%M} UTC;"
                    f" nothing is there now."
                )
            if saved.mapping_id == finding.mapping.pk:
                raise errors.StateMoved(
                    f"This tenant's state was saved at {saved.location}, not at {finding.location}."
                )
