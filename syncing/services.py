"""Operations on sync specs: create, probe, delete. Restores and saves are in separate modules."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from pathlib import PurePosixPath
from typing import Any

import structlog
from django.db import IntegrityError, transaction
from django.db.models import F, QuerySet, Sum
from django.utils import timezone

from boilerhouse.core import audit, clock, prepared
from boilerhouse.core.errors import FieldError, Invalid
from boilerhouse.core.events import afterwards, emit, recording
from boilerhouse.core.prepared import Given
from boilerhouse.queues.tasks import enqueue
from pools import mounts
from pools.errors import IdTaken
from pools.models import Pool, Workload
from pools.services import lock_pool, lock_workload, unused_id
from pools.spec import WorkloadSpec
from syncing import locations, patterns, places, probes
from syncing.errors import CoverageHeld, SyncFailed, SyncSpecNotFound
from syncing.models import Credential, SavedState, SinkProbe, SyncMapping, SyncRun, SyncSpec
from syncing.sinks import Sink
from syncing.states import Direction

log = structlog.get_logger(__name__)

CHANGED, PERIODIC = "changed", "periodic"
"""Why a task probes: the settings of saves have changed; nothing has."""
to_be_saved: list[Callable[[str], bool]] = []
"""Functions of other apps that return whether a pool has unsaved state of tenants without a container; the apps append
to it when they are loaded."""
POSITIONS = 1000
"""More than a spec has mappings: temporary positions while they are renumbered."""


def find_spec(spec_id: str) -> SyncSpec:
    """With its pool and its credential. Raises SyncSpecNotFound."""
    spec = SyncSpec.objects.select_related("pool", "credential").filter(pk=spec_id).first()
    if spec is None:
        raise SyncSpecNotFound(f"No sync spec {spec_id}.")
    return spec


def check_place(spec: SyncSpec | None, credential: Credential | None, parts: dict[str, Any]) -> places.PlaceCheck:
    """Ask the sink of a spec that will be created or changed to ``parts``, for a caller who then saves it in a
    transaction that must not wait. ``credential`` may be one that is not stored yet."""
    draft = SyncSpec(located_at=clock.now()) if spec is None else copy.copy(spec)
    _change(draft, {name: value for name, value in parts.items() if name != "mappings"})
    if credential is not None:
        draft.credential = credential
    return places.check_to_save(draft, [SyncMapping(spec=draft, **mapping) for mapping in parts["mappings"]])


def create_spec(
    *, id: str | None, name: str | None, pool: Pool, place_check: places.PlaceCheck | None = None, **parts: Any
) -> SyncSpec:
    """Create a spec after checking that its mappings fit the workload and overlap with no other location.

    ``parts``: ``mappings`` (dicts of SyncMapping fields), ``sink``, ``sink_secrets``, ``policy`` fields. The sink is
    asked first, unless ``place_check`` has its answer. It is probed afterwards; an unhealthy one is reported, but no
    error. Raises Invalid, IdTaken.
    """
    mappings = parts.pop("mappings")
    name = name or id or f"{pool.pk}-sync"
    spec = SyncSpec(name=name, pool=pool, located_at=clock.now(), **parts)
    rows = [SyncMapping(spec=spec, position=i, **mapping) for i, mapping in enumerate(mappings)]
    _check_credential(spec)
    place_check = place_check or places.check_to_save(spec, rows)
    try:
        with recording():
            _, workload = _lock(pool.pk)
            spec.id = unused_id(id, name, SyncSpec.objects.all())
            _check_credential(spec)
            places.settle(place_check)
            places.place(spec, place_check)
            check_mappings(spec, rows, workload)
            spec.save(force_insert=True)
            for row in rows:
                row.spec = spec
            SyncMapping.objects.bulk_create(rows)
            audit.record("sync_spec.create", spec.pk, after=_audited(spec, rows))
            afterwards(lambda: probe(spec, is_changed=True))
    except IntegrityError as error:
        raise IdTaken from error
    return spec


def _audited(spec: SyncSpec, mappings: list[SyncMapping]) -> dict[str, Any]:
    policy = ("on_claim", "on_release", "allow_manual_trigger", "interval_ms", "quiesce")
    fields = ("container_path", "pattern", "sink_path", "direction", "mode")
    return {
        "name": spec.name,
        "sink": spec.sink,
        "place": spec.place.get("id"),
        "policy": {name: getattr(spec, name) for name in policy},
        "mappings": [{name: getattr(mapping, name) for name in fields} for mapping in mappings],
    }


def update_spec(
    spec: SyncSpec,
    *,
    name: str | None,
    force: bool,
    check: Callable[[SyncSpec], None] = lambda _locked: None,
    place_check: places.PlaceCheck | None = None,
    **parts: Any,
) -> None:
    """Change the spec to ``parts``, as for ``create_spec``; its sink is probed afterwards.

    A mapping with the same path and pattern keeps its row, and so its history. Uploads of claimed containers run
    without deletes until their next claim, because nothing was restored under the new version (hazards.md#c3).
    ``check`` gets the locked row first and raises an error to reject the change. Raises Invalid, and CoverageHeld if
    assigned tenants would no longer be saved, without ``force``.
    """
    mappings = parts.pop("mappings")
    draft = copy.copy(spec)
    _change(draft, parts)
    _check_credential(draft)
    if place_check is None:
        place_check = places.check_to_save(draft, [SyncMapping(spec=draft, **mapping) for mapping in mappings])
    with recording():
        in_use, workload = _lock(spec.pool_id)
        spec = find_spec(spec.pk)
        check(spec)
        places.settle(place_check)
        before = _audited(spec, list(spec.mappings.all()))
        old = {(m.container_path, m.pattern): m for m in SyncMapping.objects.filter(spec=spec)}
        was_covered, was_at = _covered(list(old.values()), spec.on_release), _located(spec, list(old.values()))
        _change(spec, {**parts, "name": name or spec.name})
        rows = [SyncMapping(spec=spec, position=i, **mapping) for i, mapping in enumerate(mappings)]
        _check_credential(spec)
        places.place(spec, place_check)
        if _located(spec, rows) != was_at:
            spec.located_at = clock.now()
        check_mappings(spec, rows, workload)
        if in_use and not force and (uncovered := was_covered - _covered(rows, spec.on_release)):
            paths = ", ".join(sorted(path for path, _ in uncovered))
            raise CoverageHeld(
                f"Tenants hold containers whose {paths} would no longer be saved. With force, the change is made."
            )
        spec.version, spec.updated_at = spec.version + 1, timezone.now()
        spec.save()
        SyncMapping.objects.filter(spec=spec).update(position=F("position") + POSITIONS)
        for row in rows:
            if existing := old.pop((row.container_path, row.pattern), None):
                row.pk = existing.pk
            row.save()
        SyncMapping.objects.filter(pk__in=[old_mapping.pk for old_mapping in old.values()]).delete()
        audit.record("sync_spec.update", spec.pk, **audit.changes(before, _audited(spec, rows)))
        afterwards(lambda: probe(spec, is_changed=True))


def _change(spec: SyncSpec, parts: dict[str, Any]) -> None:
    for field, value in parts.items():
        setattr(spec, field, value)


def _located(spec: SyncSpec, mappings: list[SyncMapping]) -> tuple[Any, ...]:
    """What determines a spec's locations."""
    return spec.sink, spec.credential_id, spec.place.get("id"), {(m.template, m.direction) for m in mappings}


def _covered(mappings: list[SyncMapping], on_release: bool) -> set[tuple[str, str]]:
    return {(m.container_path, m.pattern) for m in mappings if m.uploads and on_release}


def _check_credential(spec: SyncSpec) -> None:
    if spec.credential_id and not Credential.objects.filter(pk=spec.credential_id).exists():
        raise Invalid(FieldError("/sink/credentialId", "No such credential.", "not_found"))


def check_mappings(spec: SyncSpec, mappings: list[SyncMapping], workload: WorkloadSpec) -> None:
    """Raise Invalid with a pointer for each invalid mapping."""
    wrong: list[FieldError] = []
    areas = places.areas_of_others(spec)
    restoring: list[tuple[int, PurePosixPath]] = []
    for index, mapping in enumerate(mappings):
        at = f"/mappings/{index}"
        volume = workload.volume_of(mapping.container_path)
        if volume is None or volume[0].name == "secrets":
            paths = ", ".join(v.container_path for v in workload.volumes if v.name != "secrets") or "none"
            detail = f"Not inside a volume of the workload that can be synced (those are: {paths})."
            wrong.append(FieldError(f"{at}/containerPath", detail, "no_volume"))
        if inner := mounts.inside(workload, mapping.container_path):
            detail = f"The volume {inner.name} ({inner.container_path}) is mounted inside it."
            wrong.append(FieldError(f"{at}/containerPath", detail, "overlap"))
        if mapping.pattern and (problem := patterns.check(mapping.pattern)):
            wrong.append(FieldError(f"{at}/pattern", problem, "pattern"))
        if mapping.uploads and locations.TENANT not in mapping.template.split("/"):
            detail = "An upload's location needs ${tenantId} as a whole segment of prefix or sinkPath."
            wrong.append(FieldError(f"{at}/sinkPath", detail, "no_tenant"))
        area = places.area(spec, mapping, f"mapping {index}")
        if problem := locations.conflict(area, areas):
            wrong.append(FieldError(f"{at}/sinkPath", problem, "location_conflict"))
        areas.append(area)
        if mapping.restores:
            path = PurePosixPath(mapping.container_path)
            for other, location in restoring:
                if path.is_relative_to(location) or location.is_relative_to(path):
                    detail = f"Mapping {other} restores to the same or a nested path."
                    wrong.append(FieldError(f"{at}/containerPath", detail, "overlap"))
            restoring.append((index, path))
    if wrong:
        raise Invalid(*wrong)


def check_workload(workload: Workload, spec: WorkloadSpec) -> list[FieldError]:
    """Errors of a new spec of a workload for the sync specs of its pools: every mapping needs its volume."""
    wrong = []
    for mapping in SyncMapping.objects.filter(spec__pool__workload=workload).order_by("spec_id", "position"):
        volume = spec.volume_of(mapping.container_path)
        if volume is None or volume[0].name == "secrets":
            detail = f"Sync spec {mapping.spec_id} maps {mapping.container_path}, which would be in no volume."
            wrong.append(FieldError("/volumes", detail, "mapped"))
        if inner := mounts.inside(spec, mapping.container_path):
            detail = f"Sync spec {mapping.spec_id} maps {mapping.container_path}, where {inner.name} would be mounted."
            wrong.append(FieldError("/volumes", detail, "mapped"))
    return wrong


def _lock(pool_id: str) -> tuple[bool, WorkloadSpec]:
    """Until the transaction ends, no claim of the pool commits, and its workload and all locations stay unchanged.

    Returns whether the pool has tenants with state to save, and the workload's spec. Raises PoolNotFound.
    """
    pool = lock_pool(pool_id, against_claims=True)
    workload = lock_workload(pool.workload_id)
    places.lock()
    is_held = pool.held_count() > 0 or any(ask(pool_id) for ask in to_be_saved)
    return is_held, workload.latest.spec


def delete_spec(spec: SyncSpec, *, force: bool) -> None:
    """Delete a spec; saved state stays at the sink. Raises CoverageHeld while tenants hold containers, without
    ``force``."""
    with recording():
        in_use, _ = _lock(spec.pool_id)
        spec = find_spec(spec.pk)
        if in_use and not force:
            raise CoverageHeld
        audit.record("sync_spec.delete", spec.pk, before=_audited(spec, list(spec.mappings.all())))
        spec.delete()


FULL_PROBE_EVERY = timedelta(minutes=15)
"""A healthy sink is probed more often than this, but without rclone, unless a transfer has failed."""
WORKERS_ANSWER_S = probes.DEADLINE_S + 5


def try_sink(sink: Sink, mappings: list[SyncMapping]) -> bool:
    """Probe a sink without a stored spec; returns whether a save by rclone was included.

    Only a process that may create the sandbox can do that. Raises SyncFailed.
    """
    probe = probes.Probe(sink, mappings)
    probes.run(probe, probes.IN_PROCESS, probes.ANSWER_DEADLINE_S)
    if not probes.can_jail():
        return False
    probes.run(probe, probes.BY_RCLONE, probes.TRANSFER_DEADLINE_S)
    return True


def probe(spec: SyncSpec, *, is_changed: bool = False, is_periodic: bool = False) -> dict[str, Any]:
    """Test whether a save to the spec's sink would work, within ``WORKERS_ANSWER_S``, and store the result.

    Returns ``{state, checkedAt, transferredAt, conditionalWrites, code, detail}``. A periodic probe leaves out rclone
    for ``FULL_PROBE_EVERY`` after one that included it, unless a transfer has failed since. If this process may not
    create the sandbox, a worker does it; without an answer in time, the previous result stays. Failed saves are retried
    when the sink has become healthy, and when it is healthy after a change.
    """
    now, began, was = clock.now(), time.monotonic(), _stored_health(spec)
    attempt = probes.Probe(spec.resolved_sink(), list(spec.mappings.all()), spec.pk)
    transferred_at = was.get("transferredAt")
    try:
        places.review(spec)  # first: if the place may not be used, nothing is written either
        probes.run(attempt, probes.IN_PROCESS, probes.ANSWER_DEADLINE_S)
        if not is_periodic or is_changed or was.get("state") != "healthy" or _is_due(spec, transferred_at, now):
            if not probes.can_jail():
                return _ask_worker(spec, is_changed)
            probes.run(attempt, probes.BY_RCLONE, probes.TRANSFER_DEADLINE_S)
            transferred_at = _stamp(now)
        health = {"state": "healthy", "checkedAt": _stamp(now), "transferredAt": transferred_at, **attempt.findings}
    except SyncFailed as error:
        health = _unhealthy(now, error.code, error.detail, was, attempt.findings)
    except Exception as error:  # the spec is stored by now, so creating it must not fail
        log.error("probe failed", spec=spec.pk, exc_info=True)
        detail = f"The sink could not be probed ({type(error).__name__}). See the log."
        health = _unhealthy(now, SyncFailed.code, detail, was, attempt.findings)
    _store_health(spec, health, round(1000 * (time.monotonic() - began)), is_changed)
    spec.sink_health = health
    return health


def _unhealthy(now: datetime, code: str, detail: str, was: dict[str, Any], findings: dict[str, Any]) -> dict[str, Any]:
    earlier: dict[str, Any] = {name: was[name] for name in ("conditionalWrites", "transferredAt") if name in was}
    return {"state": "unhealthy", "checkedAt": _stamp(now), "code": code, "detail": detail, **earlier, **findings}


def _stored_health(spec: SyncSpec) -> dict[str, Any]:
    return dict(SyncSpec.objects.filter(pk=spec.pk).values_list("sink_health", flat=True).first() or {})


def _stamp(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def _is_due(spec: SyncSpec, transferred_at: str | None, now: datetime) -> bool:
    """Whether rclone is due: after a while, and after a failed transfer of the spec."""
    if transferred_at is None:
        return True
    last = datetime.fromisoformat(transferred_at)
    failed = SyncRun.objects.failed().filter(spec=spec, finished_at__gt=last)
    return now - last > FULL_PROBE_EVERY or failed.exists()


def _store_health(spec: SyncSpec, health: dict[str, Any], took_ms: int, is_changed: bool) -> None:
    is_healthy, detail = health["state"] == "healthy", health.get("detail", "")
    with recording():
        was = _stored_health(spec)
        SyncSpec.objects.filter(pk=spec.pk).update(sink_health=health)
        SinkProbe.objects.create(
            spec=spec,
            at=clock.now(),
            is_healthy=is_healthy,
            code=health.get("code", ""),
            detail=detail,
            duration_ms=took_ms,
        )
        before, after = ((health_then.get("state"), health_then.get("code")) for health_then in (was, health))
        if before != after and (was or not is_healthy):
            kind = "pool.recovered" if is_healthy else "pool.warning"
            emit(kind, pool_id=spec.pool_id, specId=spec.pk, sink=health["state"], detail=detail)
        if is_healthy and (is_changed or was.get("state") != "healthy"):
            # Whichever process noticed it: saves that failed because of the sink are retried now (P4).
            enqueue("pool", "tenants.tasks.retry_saves", spec.pk)


def _ask_worker(spec: SyncSpec, is_changed: bool) -> dict[str, Any]:
    last = _last_probe(spec)
    with transaction.atomic():
        enqueue("sync", "tenants.tasks.probe_sink", spec.pk, CHANGED if is_changed else "")
    until = time.monotonic() + WORKERS_ANSWER_S
    while _last_probe(spec) == last and time.monotonic() < until:
        time.sleep(0.1)
    spec.sink_health = health = _stored_health(spec)
    return health


def seen_to_work(spec: SyncSpec) -> None:
    """A save to its sink has just succeeded; if it was unhealthy, it is probed now and not when its next probe is
    due."""
    if spec.sink_health.get("state") == "unhealthy":
        with transaction.atomic():
            enqueue("sync", "tenants.tasks.probe_sink", spec.pk)


def _last_probe(spec: SyncSpec) -> int | None:
    return SinkProbe.objects.filter(spec=spec).order_by("-pk").values_list("pk", flat=True).first()


def sharing(spec: SyncSpec) -> list[SyncSpec]:
    """Specs, including this one, that save to the same place or use the same credential."""
    place, others = places.key(spec), SyncSpec.objects.all()
    return [
        other
        for other in others
        if places.key(other) == place or (other.credential_id and other.credential_id == spec.credential_id)
    ]


def specs_to_save(pool_id: str, sync: bool | None) -> list[SyncSpec]:
    """Specs whose uploads a release runs: those with onRelease, all (True), or none (False)."""
    if sync is False:
        return []
    specs = SyncSpec.objects.filter(pool_id=pool_id).select_related("credential").prefetch_related("mappings")
    if sync is None:
        specs = specs.filter(on_release=True)
    return [spec for spec in specs.order_by("id") if _upload_mappings(spec)]


@prepared.selection
def _mappings_on_claim() -> QuerySet[SyncMapping]:
    rows = SyncMapping.objects.filter(spec__pool=Given("pool", Pool._meta.pk), spec__on_claim=True)
    return rows.select_related("spec__credential").order_by("spec_id", "position")


def mappings_to_restore(pool_id: str) -> list[SyncMapping]:
    """What is restored on claim, in the order of specs and positions."""
    return [mapping for mapping in _mappings_on_claim.all(pool=pool_id) if mapping.restores]


def specs_of(pool_id: str) -> list[SyncSpec]:
    """The pool's specs with everything that a run reads."""
    specs = SyncSpec.objects.filter(pool_id=pool_id).select_related("credential").prefetch_related("mappings")
    return list(specs.order_by("id"))


def specs_for(pool_id: str, direction: Direction) -> list[SyncSpec]:
    """Specs with a mapping of that direction, for a manual run."""
    return [spec for spec in specs_of(pool_id) if goes(spec, direction)]


def goes(spec: SyncSpec, direction: Direction) -> bool:
    """Whether any mapping of the spec has this direction."""
    attribute = "uploads" if direction == Direction.UPLOAD else "restores"
    return any(getattr(mapping, attribute) for mapping in spec.mappings.all())


def _upload_mappings(spec: SyncSpec) -> Iterable[SyncMapping]:
    return [mapping for mapping in spec.mappings.all() if mapping.uploads]


def known_bytes(tenant_id: str) -> int:
    """The size of the tenant's state in bytes at its last save."""
    rows = SavedState.objects.current().filter(tenant_id=tenant_id)
    return int(rows.aggregate(bytes=Sum("bytes"))["bytes"] or 0)
