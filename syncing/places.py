"""Places: which sinks contain the same objects, determined by an object there and not by the sink's spelling (ADR 33).

A place is a bucket, a directory or an address, identified by the random id in its ``.boilerhouse/place.json``. A spec
transfers nothing until its place is known and none of its locations overlaps with another spec's there. The result is
stored in the spec's row, so it is determined only once.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import structlog
from django.db.models import QuerySet

from boilerhouse.core import clock
from boilerhouse.core.events import recording
from boilerhouse.core.models import Deployment
from boilerhouse.queues.tasks import enqueue
from syncing import errors, locations, sinks
from syncing.locations import PLACE_KEY, Area, Spot, marker_key
from syncing.models import SavedState, SinkPlace, SyncMapping, SyncSpec
from syncing.sinks import CLAIM_DEADLINE_S, Sink, deadlines
from syncing.states import PlaceState

log = structlog.get_logger(__name__)

FORMAT = 1
LOOK_DEADLINE_S = 4
"""The deadline, because saving a spec waits for it, and so does a claim that is the first to use one."""
SETTLE_S = 0.5
"""At a sink without conditional writes, the writer of the object reads it again after this time and accepts what is
there."""
FRESH_S = 5
"""A younger object may still be replaced by that of a concurrent writer."""
WITNESSES = 3
ADMITTED = (PlaceState.KNOWN, PlaceState.UNKNOWN)
REFUSED = (PlaceState.CONFLICT, PlaceState.CHANGED)

_lookers = ThreadPoolExecutor(16, thread_name_prefix="places")
_making: defaultdict[tuple[str, str], threading.Lock] = defaultdict(threading.Lock)


@dataclass(frozen=True, slots=True)
class Observation:
    """The result of looking at a sink."""

    spelled: str
    id: str
    """Empty if the place's object can neither be read nor created."""
    others: tuple[dict[str, str], ...] = ()
    """Other places that contain the spec's locations: ``{id, at}`` is inside this one, ``{id, above}`` contains it."""
    addresses: tuple[str, ...] = ()
    is_same: bool = True
    """Whether it is the expected place: by its id, or because the last saves are there."""

    def names(self) -> dict[str, str]:
        """The ids of the place and of those inside it, by their spelling relative to it."""
        own = {self.spelled: self.id} if self.id else {}
        return own | {f"{self.spelled} /{other['at']}": other["id"] for other in self.others if "at" in other}

    def row(self) -> dict[str, Any]:
        others = [dict(other) for other in self.others]
        return {"spelled": self.spelled, "id": self.id, "others": others, "addresses": list(self.addresses)}


@dataclass(frozen=True, slots=True)
class Mark:
    """The id in a place's object; empty if there is none, or none that may be read."""

    id: str = ""
    made_at: float = 0.0
    refusal: str = ""
    """The sink's message if it does not let the keys read it."""


@dataclass(frozen=True, slots=True)
class Look:
    """One sink to look at; needs no database."""

    sink: Sink
    prefix: str
    templates: tuple[str, ...]
    expected: str = ""
    """The id that the place had; empty if any is accepted."""
    witnesses: tuple[str, ...] = ()
    """Locations of the last saves there."""
    version: int = 0
    is_confirmed: bool = False
    """Whether the place is accepted as it is now, as when a spec is saved."""


@dataclass(slots=True)
class PlaceCheck:
    """The results for a spec, and for other specs that determine whether it may use its place."""

    own: Observation | errors.SyncFailed
    others: dict[str, Observation | errors.SyncFailed] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    is_new: bool = False
    """Whether a place was found that no known spec uses yet: it may be inside another spec's."""


def sink_of(spec: SyncSpec) -> Sink:
    """The spec's sink for a transfer: its place is known, and none of its locations overlaps with another spec's.

    Queries the sink only if that is not known yet. Raises SyncFailed if it does not answer, LocationConflict,
    PlaceChanged.
    """
    sink = spec.resolved_sink()
    if not is_settled(spec, sink):
        _refuse(spec)
        review(spec)
        if spec.place_state not in ADMITTED or spec.place.get("spelled") != sink.place_name:
            raise errors.SinkUnreachable("The sync spec was changed while its sink was being identified.")
    return sink


def is_settled(spec: SyncSpec, sink: Sink) -> bool:
    """Whether ``sink_of`` answers without a query."""
    return spec.place_state == PlaceState.KNOWN and spec.place.get("spelled") == sink.place_name


def review(spec: SyncSpec) -> None:
    """Determine the spec's place now; afterwards the row contains it and whether the spec may use it.

    Raises SyncFailed if the sink does not answer, and LocationConflict or PlaceChanged if nothing may be transferred.
    """
    check = _check_place(spec, _look(spec, spec.mappings.all()), is_saving=False)
    if isinstance(check.own, errors.SyncFailed):
        raise check.own
    if check.others or check.is_new or not _is_as_noted(spec, check.own):
        with recording():
            settle(check, spec.pk)
        spec.refresh_from_db(fields=["place", "place_state", "place_detail"])
    _refuse(spec)


def _refuse(spec: SyncSpec) -> None:
    if spec.place_state == PlaceState.CONFLICT:
        raise errors.LocationConflict(spec.place_detail)
    if spec.place_state == PlaceState.CHANGED:
        raise errors.PlaceChanged(spec.place_detail)


def _is_as_noted(spec: SyncSpec, observation: Observation) -> bool:
    return observation.is_same and spec.place_state in ADMITTED and spec.place == observation.row()


def check_to_save(spec: SyncSpec, mappings: list[SyncMapping]) -> PlaceCheck:
    """Determine the place of a spec that is about to be saved, before the lock; a sink that does not answer is no
    error.

    A spec whose place is known to have changed is accepted as it is, because saving it confirms that.
    """
    return _check_place(
        spec, _look(spec, mappings, is_confirmed=spec.place_state == PlaceState.CHANGED), is_saving=True
    )


def _look(spec: SyncSpec, mappings: Iterable[SyncMapping], *, is_confirmed: bool = False) -> Look:
    sink, templates = spec.resolved_sink(), tuple(sorted({mapping.template for mapping in mappings}))
    is_noted = spec.place.get("spelled") == sink.place_name
    expected = str(spec.place.get("id", "")) if is_noted else ""
    witnesses: list[str] = []
    if expected and not is_confirmed:
        saved = SavedState.objects.current().filter(place__in=names_of(spec)).order_by("-saved_at")
        witnesses = list(saved.values_list("location", flat=True)[:WITNESSES])
    return Look(sink, spec.prefix, templates, expected, tuple(witnesses), spec.version, is_confirmed)


def _check_place(spec: SyncSpec, look: Look, *, is_saving: bool) -> PlaceCheck:
    """Look at the spec's sink, and at those of others that matter: all if the place is new, because it may be inside
    theirs, otherwise those not checked yet, unless this spec is in use already."""
    own = _ask({"": look})[""]
    if isinstance(own, errors.SyncFailed):
        return PlaceCheck(own)
    is_new = own.is_same and _is_new(own)
    others = SyncSpec.objects.exclude(pk=spec.pk).select_related("credential").prefetch_related("mappings")
    if not is_new:
        is_in_use = spec.place_state in ADMITTED and not is_saving
        others = others.none() if is_in_use else others.filter(place_state=PlaceState.UNASKED)
    looks = {other.pk: _look(other, other.mappings.all()) for other in others}
    if is_new and looks:
        time.sleep(SETTLE_S)  # other servers of the same files may list them a moment later
    versions = {pk: other.version for pk, other in looks.items()} | {spec.pk: look.version}
    return PlaceCheck(own, _ask(looks), versions, is_new)


def _is_new(observation: Observation) -> bool:
    ids = set(observation.names().values())
    return SinkPlace.objects.filter(place_id__in=ids).values("place_id").distinct().count() < len(ids)


def _ask(looks: dict[str, Look]) -> dict[str, Observation | errors.SyncFailed]:
    """Look at all in parallel; one that does not answer in time is unreachable."""
    until = time.monotonic() + LOOK_DEADLINE_S
    futures = {key: _lookers.submit(_look_in_time, look) for key, look in looks.items()}
    return {key: _answer(future, until - time.monotonic()) for key, future in futures.items()}


def _answer(future: Future[Observation], within_s: float) -> Observation | errors.SyncFailed:
    try:
        return future.result(max(0.0, within_s))
    except TimeoutError:
        future.cancel()
        return errors.SinkUnreachable(f"The sink could not be identified within {LOOK_DEADLINE_S} s.")
    except errors.SyncFailed as error:
        return error
    except Exception as error:  # a client's library may raise anything for an endpoint; that must not refuse the spec
        log.error("place not identified", exc_info=True)
        return errors.SyncFailed(f"The sink could not be identified ({type(error).__name__}). See the log.")


def _look_in_time(look: Look) -> Observation:
    with deadlines.within(LOOK_DEADLINE_S):
        return look_at(look)


def look_at(look: Look) -> Observation:
    """Read the place's object, and create it if missing. Raises SyncFailed if the sink does not answer."""
    sink = look.sink
    mark = _read_steady(sink, "", look.expected)
    mark_id = mark.id
    is_same = look.is_confirmed or not look.expected or mark_id == look.expected
    if not is_same:
        if mark.refusal:
            detail = f"{mark.refusal} The keys may no longer read {PLACE_KEY}, which identifies the place."
            raise errors.SinkDenied(detail)
        is_same = not look.witnesses or any(_has_marker(sink, location) for location in look.witnesses)
    if not mark_id and is_same:
        mark_id = _make(sink, "", look.expected or uuid.uuid4().hex)
    others = tuple(_others(look, may_make=bool(mark_id))) if is_same else ()
    return Observation(sink.place_name, mark_id, others, tuple(sink.addresses()), is_same)


def _others(look: Look, *, may_make: bool) -> Iterator[dict[str, str]]:
    anchors = look.sink.anchors(look.prefix) if may_make else []
    folders = {level for template in look.templates for level in locations.levels(template)}
    for folder in sorted(folders | {anchor for anchor in anchors if anchor}):
        other = _read_other(look.sink, folder)
        if not other and folder in anchors:
            other = _make(look.sink, folder, uuid.uuid4().hex)
        if other:
            yield {"id": other, "at": folder}
    for sink, inside in look.sink.above():
        if other := _read_other(sink, ""):
            yield {"id": other, "above": inside}


def _read_other(sink: Sink, folder: str) -> str:
    """The id of another place; a folder without a readable one is not a place."""
    try:
        return _read(sink, folder).id
    except errors.SyncFailed as error:
        if folder and error.may_pass:
            raise
        return ""  # what is above may belong to another server


def _read(sink: Sink, folder: str) -> Mark:
    """The current object of a place. Raises SinkUnreliable if Boilerhouse did not write it."""
    key = locations.join(folder, PLACE_KEY)
    try:
        content = sink.get(key, CLAIM_DEADLINE_S)
    except errors.SinkDenied as error:
        return Mark(refusal=error.detail)
    if content is None:
        return Mark()
    try:
        document = json.loads(content)
        return Mark(uuid.UUID(hex=document["id"]).hex, float(document.get("madeAt", 0)))
    except (ValueError, TypeError, KeyError, AttributeError):
        detail = f"{key} was not written by Boilerhouse. Delete it, and probe the sink."
        raise errors.SinkUnreliable(detail) from None


def _read_steady(sink: Sink, folder: str, expected: str) -> Mark:
    """``_read``, repeated after a pause if the object may be incomplete or a concurrent write in progress."""
    try:
        mark = _read(sink, folder)
    except errors.SinkUnreliable:
        mark = None
    if mark is None or (mark.id not in ("", expected) and abs(time.time() - mark.made_at) < FRESH_S):
        time.sleep(SETTLE_S)
        mark = _read(sink, folder)
    return mark


def _make(sink: Sink, folder: str, place_id: str) -> str:
    """Write the object unless there is one; returns the id on which all concurrent writers agree, or none if it may not
    be written."""
    key = locations.join(folder, PLACE_KEY)
    content = json.dumps({"format": FORMAT, "id": place_id, "madeAt": round(time.time(), 3)}).encode()
    with _making[sink.place_name, folder]:
        if mark_id := _read_steady(sink, folder, "").id:
            return mark_id
        try:
            if not sink.create(key, content):
                time.sleep(SETTLE_S)
        except (errors.SinkDenied, errors.SinkRefused):
            return ""
        return _read_steady(sink, folder, place_id).id


def _has_marker(sink: Sink, location: str) -> bool:
    return sink.get(marker_key(location), CLAIM_DEADLINE_S) is not None


def place(spec: SyncSpec, check: PlaceCheck) -> None:
    """Record the place of a spec that is about to be saved; a sink that did not answer is queried at its first use."""
    if isinstance(check.own, errors.SyncFailed):
        is_kept = spec.place.get("spelled") == spelling(spec)
        spec.place, spec.place_state, spec.place_detail = spec.place if is_kept else {}, PlaceState.UNASKED, ""
    else:
        _note(spec, check.own)


def settle(check: PlaceCheck, spec_id: str = "") -> None:
    """Write the results to the rows, and decide for each of these specs whether it may use its place.

    Call it in a transaction. With ``spec_id``, the results' own spec is one of them.
    """
    observations = {**check.others, **({spec_id: check.own} if spec_id else {})}
    if not observations:
        return
    lock()
    rows = {spec.pk: spec for spec in _without_secrets()}
    pairs = [
        (rows[pk], observation)
        for pk, observation in observations.items()
        if pk in rows and rows[pk].version == check.versions[pk]
    ]
    pairs.sort(key=lambda pair: _order(pair[0]))
    for spec, observation in pairs:
        if isinstance(observation, Observation):
            _note(spec, observation)
        elif check.is_new and spec.place_state in ADMITTED:
            spec.place_state = PlaceState.UNASKED  # the new place may be inside its own
            _have_probed(spec)
    for spec, _ in pairs:
        _judge(spec, rows.values())
    for spec, _ in pairs:
        _store(spec)


def lock() -> None:
    """Until the end of the transaction, no other process decides about locations of the deployment."""
    # Also if there is no spec yet that could be locked.
    Deployment.objects.select_for_update(no_key=True).first()
    list(SyncSpec.objects.select_for_update(no_key=True).order_by("pk").values_list("pk"))


def _without_secrets() -> QuerySet[SyncSpec]:
    """All specs, without decrypting anything."""
    return SyncSpec.objects.defer("sink_secrets").prefetch_related("mappings")


def areas_of_others(spec: SyncSpec) -> list[Area]:
    """What a spec that is about to be saved must not overlap with: later specs that are blocked for that very reason do
    not count."""
    rows = _without_secrets().exclude(pk=spec.pk)
    blocked = PlaceState.CONFLICT
    return [area for row in rows if row.place_state != blocked or _order(row) < _order(spec) for area in areas(row)]


def areas(spec: SyncSpec) -> list[Area]:
    """The areas of the spec's mappings."""
    return [area(spec, mapping, f"sync spec {spec.pk}, mapping {mapping.position}") for mapping in spec.mappings.all()]


def area(spec: SyncSpec, mapping: SyncMapping, label: str) -> Area:
    """The area of a mapping, by the sink's spelling and in every place known to contain it."""
    template = mapping.template
    spelled, at = sinks.resolve(spec.sink, {}).area(template)
    spots: list[Spot] = [(("spelled", *spelled), at)]
    if spec.place.get("id"):
        spots.append((("id", spec.place["id"]), template))
    for other in spec.place.get("others", ()):
        if "above" in other:
            spots.append((("id", other["id"]), locations.join(other["above"], template)))
        elif template == other["at"] or template.startswith(f"{other['at']}/"):
            spots.append((("id", other["id"]), template[len(other["at"]) :].strip("/")))
    near = tuple(((address, *spelled[1:]), at) for address in spec.place.get("addresses", ()))
    is_known = spec.place_state != PlaceState.UNKNOWN
    return Area(tuple(spots), mapping.uploads, mapping.restores, label, near, is_known)


def _order(spec: SyncSpec) -> tuple[Any, str]:
    return spec.located_at, spec.pk


def _note(spec: SyncSpec, observation: Observation) -> None:
    if not observation.is_same:
        spec.place_state = PlaceState.CHANGED
        what = "another place than when this spec was saved" if observation.id else "a place without its object"
        spec.place_detail = (
            f"The sink is {what}, and none of the last saves is there: it was emptied, or its address now leads"
            " elsewhere. Nothing is restored or saved. Correct the address, or save the spec again to use the"
            " sink as it is."
        )
        return
    spec.place, spec.place_detail = observation.row(), ""
    spec.place_state = PlaceState.KNOWN if observation.id else PlaceState.UNKNOWN
    for name, place_id in observation.names().items():
        SinkPlace.objects.update_or_create(name=name, defaults={"place_id": place_id, "seen_at": clock.now()})


def _judge(spec: SyncSpec, everybody: Iterable[SyncSpec]) -> None:
    """Of two overlapping specs, the one with the older locations continues."""
    if spec.place_state not in ADMITTED:
        return
    own = areas(spec)
    for other in everybody:
        if other.pk == spec.pk or other.place_state == PlaceState.CONFLICT:
            continue
        theirs = areas(other)
        is_older = _order(spec) < _order(other)
        loser, winner = (theirs, own) if is_older else (own, theirs)
        problem = next((clash for area in loser if (clash := locations.conflict(area, winner))), None)
        if problem is None:
            continue
        if not is_older:
            spec.place_state, spec.place_detail = PlaceState.CONFLICT, _words(problem)
            return
        if other.place_state in ADMITTED:
            other.place_state, other.place_detail = PlaceState.CONFLICT, _words(problem)
            _store(other)
            _have_probed(other)


def _words(problem: str) -> str:
    return f"{problem} Nothing is restored or saved until one of the two is changed."


def _store(spec: SyncSpec) -> None:
    SyncSpec.objects.filter(pk=spec.pk).update(
        place=spec.place, place_state=spec.place_state, place_detail=spec.place_detail
    )


def _have_probed(spec: SyncSpec) -> None:
    enqueue("sync", "tenants.tasks.probe_sink", spec.pk)


def doubt(rows: QuerySet[SyncSpec]) -> None:
    """Have these specs' places determined again before any transfer; call it in a transaction."""
    rows.filter(place_state__in=ADMITTED).update(place_state=PlaceState.UNASKED)


def check_typed(spec: SyncSpec, mappings: list[SyncMapping]) -> None:
    """Raise LocationConflict, or the sink's error, if a spec that is not stored may write nothing."""
    check = check_to_save(spec, mappings)
    if isinstance(check.own, errors.SyncFailed):
        raise check.own
    spec.place = check.own.row()
    spec.place_state = PlaceState.KNOWN if check.own.id else PlaceState.UNKNOWN
    others = areas_of_others(spec)
    for mapping in mappings:
        if problem := locations.conflict(area(spec, mapping, ""), others):
            raise errors.LocationConflict(problem)


def spelling(spec: SyncSpec) -> str:
    """The spelling of the spec's sink, without reading its secrets."""
    return sinks.resolve(spec.sink, {}).place_name


def far_end(spec: SyncSpec) -> str:
    """A key for slowness: work with the spec's sink is slow for all specs with this key. Makes no query."""
    return sinks.resolve(spec.sink, {}).far_end(locations.literal(spec.prefix))


def key(spec: SyncSpec) -> str:
    """The same for all specs that save to one place, as far as known."""
    return str(spec.place.get("id") or spelling(spec))


def names_of(spec: SyncSpec) -> set[str]:
    """Every known spelling of the spec's own place, as in rows of saves and backups."""
    names = {spelling(spec)}
    if place_id := spec.place.get("id"):
        names |= set(SinkPlace.objects.filter(place_id=place_id).values_list("name", flat=True))
    return names
