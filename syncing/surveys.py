"""What the sinks hold for a tenant, asked before anything is touched; an empty answer is not yet a first time (C2)."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

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


def survey_specs(specs: list[SyncSpec], tenant_id: str) -> Callable[[], list[Finding]]:
    """``begin_survey`` for given specs."""
    asked: list[tuple[SyncMapping, Sink, str, Future[tuple[Marker | None, str]], Future[bool]]] = []
    for spec in specs:
        sink = spec.resolved_sink()
        for mapping in spec.mappings.all():
            if mapping.restores:
                mapping.spec = spec
                location = mapping.location(tenant_id)
                marker = _askers.submit(read_marker, sink, location, CLAIM_DEADLINE_S)
                has_objects = _askers.submit(sink.has_objects, location, CLAIM_DEADLINE_S)
                asked.append((mapping, sink, location, marker, has_objects))

    def answers() -> list[Finding]:
        findings = [Finding(m, sink, at, marker.result()[0], has.result()) for m, sink, at, marker, has in asked]
        _check_first_times([f for f in findings if f.marker is None and not f.has_objects], tenant_id)
        return findings

    return answers


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
