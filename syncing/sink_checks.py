"""Queries the sinks for a tenant's state before anything is touched. An empty answer alone does not mean a first claim
(hazards.md#c2)."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from django.db.models import Max, QuerySet

from boilerhouse.core import prepared
from boilerhouse.core.prepared import Given
from syncing import errors, places, services
from syncing.locations import marker_key
from syncing.markers import PLAIN_BYTES, Marker
from syncing.models import SavedState, SyncMapping, SyncSpec
from syncing.sinks import CLAIM_DEADLINE_S, Sink, deadlines, sizes
from syncing.sinks.base import PATIENT_DEADLINE_S, SLOWEST_BYTES_PER_S

T = TypeVar("T")

NEAR_S = 0.015
"""A near sink answers within this time."""
SLOW_S = CLAIM_DEADLINE_S / 2
"""A sink whose last answer took longer gets one claim thread and one worker, so that claims with other sinks
continue."""
ASKERS, ASKERS_PER_SINK = 8, 4
BRIEF_BYTES = PLAIN_BYTES
"""The size limit of answers that a claim reads in the web process, which must not be delayed; longer ones are for a
worker."""
FILES_PER_S = 2000
"""Size to assume for a marker of unknown size, on the slowest line."""
BRIEF_S = 5
"""A sink that has failed every claim for longer is down: further claims do not wait for it to recover."""


@dataclass(frozen=True, slots=True)
class SinkState:
    """The state of one mapping of one tenant at the sink."""

    mapping: SyncMapping
    sink: Sink
    location: str
    marker: Marker | None
    has_objects: bool

    @property
    def is_empty(self) -> bool:
        """Nothing to restore and nothing to undo."""
        if self.marker is not None:
            return self.marker.state == "closed" and self.marker.manifest.is_empty
        return not self.has_objects


@dataclass(frozen=True, slots=True)
class Query:
    """The query of one mapping: executed by its own threads, or by the caller that needs the answer."""

    mapping: SyncMapping
    sink: Sink | None
    """None if it is not known yet whether the spec may use its sink: the caller determines that first."""
    location: str
    within_s: float
    begun: tuple[Future[Marker | None], Future[bool]] | None = None

    @property
    def place_name(self) -> str:
        return self.sink.place_name if self.sink else places.spelling(self.mapping.spec)

    @property
    def is_slow(self) -> bool:
        return _took_s.get(self.place_name, 0.0) > SLOW_S

    def answer(self) -> SinkState:
        sink = self.sink or _admitted(self.mapping.spec)
        if self.begun:
            asked_marker, asked_objects = self.begun
            marker, has_objects = asked_marker.result(), asked_objects.result()
        else:
            with _bounded(self.within_s):
                marker = _marker(sink, self.location)
                has_objects = marker is not None or _has_objects(sink, self.location)
        return SinkState(self.mapping, sink, self.location, marker, has_objects)


@dataclass(frozen=True, slots=True)
class SinkCheck:
    """The queries of the sinks for a tenant."""

    tenant_id: str
    queries: list[Query]

    @property
    def far_ends(self) -> set[str]:
        """The sinks that must answer or deliver before the tenant's state is there."""
        return {places.far_end(query.mapping.spec) for query in self.queries}

    def is_near(self, within_s: float) -> bool:
        """Whether all sinks have answered or failed ``within_s`` seconds from now, or are known to be that fast."""
        if any(query.sink is None for query in self.queries):
            return False
        futures: list[Future[Any]] = [future for query in self.queries for future in query.begun or ()]
        return not wait(futures, within_s).not_done

    @property
    def is_slow(self) -> bool:
        """Whether one of its sinks took long at the last query, or has not answered at all."""
        return any(query.is_slow for query in self.queries)

    @contextmanager
    def entered(self, threads: int) -> Iterator[bool]:
        """Whether a claim may wait here for the answer; while the block runs, it counts as waiting.

        Of ``threads``, a sink gets all but one, a slow one a single one, so that claims with other sinks find a free
        one.
        """
        far = {query.place_name for query in self.queries if query.begun is not None}
        slow = {query.place_name for query in self.queries if query.is_slow}
        with _counting:
            may_wait = all(_waiting[name] < threads - 1 for name in far) and not any(_waiting[name] for name in slow)
            if may_wait:
                _waiting.update(far | slow)
        try:
            yield may_wait
        finally:
            if may_wait:
                with _counting:
                    _waiting.subtract(far | slow)

    def may_pass(self) -> bool:
        """Whether its sinks answered until recently, so that a retry may succeed."""
        now = time.monotonic()
        names = {places.spelling(query.mapping.spec) for query in self.queries}
        return all(now - _silent_since.get(name, now) < BRIEF_S for name in names)

    def answer(self) -> list[SinkState]:
        """The state at the sinks; waits for their answers.

        Raises SyncFailed if a sink does not answer, Oversized if the answer is too large to read here, StateMissing and
        StateMoved if it is empty although a save is known (hazards.md#c2): an empty answer means a first claim only if
        nothing was ever saved.
        """
        sink_states = [query.answer() for query in self.queries]
        _check_first_times([f for f in sink_states if f.marker is None and not f.has_objects], self.tenant_id)
        return sink_states


def begin_check(pool_id: str, tenant_id: str, within_s: float = CLAIM_DEADLINE_S) -> SinkCheck:
    """Start querying the sinks for the tenant's state; each has ``within_s`` seconds for one mapping."""
    return _ask(services.mappings_to_restore(pool_id), tenant_id, within_s)


def patience_s(tenant_id: str) -> float:
    """How long a worker waits for an answer: a marker of a million files is read over any connection."""
    rows = SavedState.objects.current().filter(tenant_id=tenant_id)
    totals = rows.aggregate(largest=Max("marker_bytes"), files=Max("files"))
    reading_s = max((totals["largest"] or 0) / SLOWEST_BYTES_PER_S, (totals["files"] or 0) / FILES_PER_S)
    return PATIENT_DEADLINE_S + reading_s


def check_spec(spec: SyncSpec, tenant_id: str) -> SinkCheck:
    """``begin_check`` for one given spec."""
    mappings = [mapping for mapping in spec.mappings.all() if mapping.restores]
    for mapping in mappings:
        mapping.spec = spec
    return _ask(mappings, tenant_id, patience_s(tenant_id))


_askers = ThreadPoolExecutor(ASKERS, thread_name_prefix="sinks")
_query_threads: Counter[str] = Counter()
"""Threads that query each sink now, or will as soon as they can."""
_waiting: Counter[str] = Counter()
"""Claims that wait here for each sink."""
_counting = threading.Lock()
_took_s: dict[str, float] = {}
"""The duration of each sink's last answer to a claim."""
_silent_since: dict[str, float] = {}
"""The first failure of each sink that has not answered since."""


def _ask(mappings: list[SyncMapping], tenant_id: str, within_s: float) -> SinkCheck:
    specs: dict[str, SyncSpec] = {}
    sinks: dict[str, Sink | None] = {}
    for mapping in mappings:
        mapping.spec = specs.setdefault(mapping.spec_id, mapping.spec)
        if mapping.spec_id not in sinks:
            sink = mapping.spec.resolved_sink()
            sinks[mapping.spec_id] = sink if places.is_settled(mapping.spec, sink) else None
    queries = [_query(entry, sinks[entry.spec_id], entry.location(tenant_id), within_s) for entry in mappings]
    return SinkCheck(tenant_id, queries)


def _query(mapping: SyncMapping, sink: Sink | None, location: str, within_s: float) -> Query:
    """Two threads for a slow sink, so that it answers while the database works; a near one has answered before two
    threads are scheduled (ADR 25)."""
    took_s = _took_s.get(sink.place_name, NEAR_S) if sink else 0.0
    if sink is None or took_s < NEAR_S or took_s > SLOW_S or not _may_ask(sink.place_name):
        return Query(mapping, sink, location, within_s)
    begun = (
        _begin(sink, partial(_marker, sink, location), within_s),
        _begin(sink, partial(_has_objects, sink, location), within_s),
    )
    return Query(mapping, sink, location, within_s, begun)


def _may_ask(name: str) -> bool:
    """Count two threads for the sink, unless too few would be left for others."""
    with _counting:
        if _query_threads[name] + 2 > ASKERS_PER_SINK:
            return False
        _query_threads[name] += 2
        return True


def _begin(sink: Sink, ask: Callable[[], T], within_s: float) -> Future[T]:
    def run() -> T:
        with _bounded(within_s):
            return ask()

    def count(_: Future[T]) -> None:
        with _counting:
            _query_threads[sink.place_name] -= 1

    future = _askers.submit(run)
    future.add_done_callback(count)
    return future


@contextmanager
def _bounded(within_s: float) -> Iterator[None]:
    """Whether it is a claim's query in the web process, which must be brief."""
    most = BRIEF_BYTES if within_s == CLAIM_DEADLINE_S else sizes.MOST_BYTES
    with deadlines.within(within_s), sizes.at_most(most):
        yield


def _admitted(spec: SyncSpec) -> Sink:
    with _timed(places.spelling(spec)):
        return places.sink_of(spec)


def _marker(sink: Sink, location: str) -> Marker | None:
    with _timed(sink.place_name):
        return read_marker(sink, location, CLAIM_DEADLINE_S)[0]


def _has_objects(sink: Sink, location: str) -> bool:
    with _timed(sink.place_name):
        return sink.has_objects(location, CLAIM_DEADLINE_S)


@contextmanager
def _timed(name: str) -> Iterator[None]:
    began = time.monotonic()
    try:
        yield
    except errors.SinkUnreachable:
        _silent_since.setdefault(name, began)
        raise
    else:
        _silent_since.pop(name, None)
    finally:
        _took_s[name] = time.monotonic() - began


def read_marker(sink: Sink, location: str, deadline_s: int) -> tuple[Marker | None, str]:
    """The marker of a location and its tag at the sink."""
    content, tag = sink.read(marker_key(location), deadline_s)
    if content is None:
        return None, tag
    try:
        return Marker.load(content, sizes.MOST_UNPACKED_BYTES if sizes.most() > BRIEF_BYTES else BRIEF_BYTES), tag
    except ValueError as error:
        raise errors.Incomplete(f"The marker of {location} cannot be read: {error}.") from error


@prepared.selection
def _saved() -> QuerySet[SavedState]:
    tenant = Given("tenant", SavedState._meta.get_field("tenant_id"))
    return SavedState.objects.current().filter(tenant_id=tenant, files__gt=0)


def _check_first_times(silent: list[SinkState], tenant_id: str) -> None:
    silent = [sink_state for sink_state in silent if sink_state.mapping.uploads]
    if not silent:
        return
    saves = _saved.all(tenant=tenant_id)
    if not saves:
        return
    saves.sort(key=lambda saved: saved.saved_at, reverse=True)
    specs = {sink_state.mapping.spec_id: sink_state.mapping.spec for sink_state in silent}
    names = {pk: places.names_of(spec) for pk, spec in specs.items()}
    for sink_state in silent:
        for saved in saves:
            if saved.location == sink_state.location and saved.place in names[sink_state.mapping.spec_id]:
                raise errors.StateMissing(
                    f"{saved.files} files were saved at {sink_state.location} on {saved.saved_at:%Y-%m-%d %H:%M} UTC;"
                    f" nothing is there now."
                )
            if saved.mapping_id == sink_state.mapping.pk:
                raise errors.StateMoved(
                    f"This tenant's state was saved at {saved.location}, not at {sink_state.location}."
                )
