"""The verbs of sync specs: create, probe, delete. Restores and saves are in modules of their own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Any

import structlog
from django.db import IntegrityError, transaction
from django.db.models import F
from django.utils import timezone

from boilerhouse.core import audit
from boilerhouse.core.errors import FieldError, Invalid
from boilerhouse.core.events import emit, recording
from pools import mounts
from pools.errors import IdTaken
from pools.models import Pool, Workload
from pools.services import unused_id
from pools.spec import WorkloadSpec
from syncing import locations, patterns
from syncing.errors import CoverageHeld, SinkUnreachable, SyncFailed
from syncing.models import Credential, SinkProbe, SyncMapping, SyncSpec
from syncing.sinks import Sink
from syncing.states import Direction

log = structlog.get_logger(__name__)

POSITIONS = 1000
"""More than a spec has mappings: where they are put while they are renumbered."""


def create_spec(*, id: str | None, name: str | None, pool: Pool, **parts: Any) -> SyncSpec:
    """Make a spec after checking that its mappings fit the workload and meet nobody else's location.

    ``parts``: ``mappings`` (dicts of SyncMapping fields), ``sink``, ``sink_secrets``, ``policy`` fields. The sink is
    probed afterwards; its health is shown, never a gate. Raises Invalid, IdTaken.
    """
    mappings = parts.pop("mappings")
    name = name or id or f"{pool.pk}-sync"
    try:
        with recording():
            # The deployment's locations are checked and taken under one lock.
            list(SyncSpec.objects.select_for_update().values_list("pk"))
            spec = SyncSpec(id=unused_id(id, name, SyncSpec.objects.all()), name=name, pool=pool, **parts)
            rows = [SyncMapping(spec=spec, position=i, **mapping) for i, mapping in enumerate(mappings)]
            _check_credential(spec)
            check_mappings(spec, rows, pool.workload.latest.spec)
            spec.save(force_insert=True)
            SyncMapping.objects.bulk_create(rows)
            audit.record("sync_spec.create", spec.pk, after=_audited(spec, rows))
    except IntegrityError as error:
        raise IdTaken from error
    probe(spec)
    return spec


def _audited(spec: SyncSpec, mappings: list[SyncMapping]) -> dict[str, Any]:
    policy = ("on_claim", "on_release", "allow_manual_trigger", "interval_ms", "quiesce")
    fields = ("container_path", "pattern", "sink_path", "direction", "mode")
    return {
        "name": spec.name,
        "sink": spec.sink,
        "policy": {name: getattr(spec, name) for name in policy},
        "mappings": [{name: getattr(mapping, name) for name in fields} for mapping in mappings],
    }


def update_spec(
    spec: SyncSpec,
    *,
    name: str | None,
    held: bool,
    force: bool,
    check: Callable[[SyncSpec], None] = lambda _locked: None,
    **parts: Any,
) -> None:
    """Make the spec what ``parts`` say, as for ``create_spec``; its sink is probed afterwards.

    A mapping that goes on with the same path and pattern keeps its row, and so its history. Held tenants' uploads run
    without deletes until their next claim, for nothing was restored under the new version (hazard C3). ``check`` sees
    the locked row first and raises what stands against the change. Raises Invalid,
    and CoverageHeld when tenants are held and would not be saved any more, without ``force``.
    """
    mappings = parts.pop("mappings")
    with recording():
        list(SyncSpec.objects.select_for_update().values_list("pk"))
        spec.refresh_from_db()
        check(spec)
        before = _audited(spec, list(spec.mappings.all()))
        old = {(m.container_path, m.pattern): m for m in SyncMapping.objects.filter(spec=spec)}
        was_covered = _covered(list(old.values()), spec.on_release)
        for field, value in {**parts, "name": name or spec.name}.items():
            setattr(spec, field, value)
        rows = [SyncMapping(spec=spec, position=i, **mapping) for i, mapping in enumerate(mappings)]
        _check_credential(spec)
        check_mappings(spec, rows, spec.pool.workload.latest.spec)
        if held and not force and (lost := was_covered - _covered(rows, spec.on_release)):
            paths = ", ".join(sorted(path for path, _ in lost))
            raise CoverageHeld(f"Tenants hold containers whose {paths} would not be saved any more; force drops that.")
        spec.version, spec.updated_at = spec.version + 1, timezone.now()
        spec.save()
        SyncMapping.objects.filter(spec=spec).update(position=F("position") + POSITIONS)
        for row in rows:
            if kept := old.pop((row.container_path, row.pattern), None):
                row.pk = kept.pk
            row.save()
        SyncMapping.objects.filter(pk__in=[gone.pk for gone in old.values()]).delete()
        audit.record("sync_spec.update", spec.pk, **audit.changes(before, _audited(spec, rows)))
    probe(spec)


def _covered(mappings: list[SyncMapping], on_release: bool) -> set[tuple[str, str]]:
    return {(m.container_path, m.pattern) for m in mappings if m.uploads and on_release}


def _check_credential(spec: SyncSpec) -> None:
    if spec.credential_id and not Credential.objects.filter(pk=spec.credential_id).exists():
        raise Invalid(FieldError("/sink/credentialId", "There is no such credential.", "not_found"))


def check_mappings(spec: SyncSpec, mappings: list[SyncMapping], workload: WorkloadSpec) -> None:
    """Raise Invalid with a pointer for each mapping that cannot be."""
    wrong: list[FieldError] = []
    areas = _areas_of_others(spec)
    restoring: list[tuple[int, PurePosixPath]] = []
    for index, mapping in enumerate(mappings):
        at = f"/mappings/{index}"
        found = workload.volume_of(mapping.container_path)
        if found is None or found[0].name == "secrets":
            known = ", ".join(v.container_path for v in workload.volumes if v.name != "secrets") or "none"
            detail = f"Lies in no volume of the workload that can be synced (those are: {known})."
            wrong.append(FieldError(f"{at}/containerPath", detail, "no_volume"))
        if inner := mounts.inside(workload, mapping.container_path):
            detail = f"The volume {inner.name} ({inner.container_path}) is mounted inside it."
            wrong.append(FieldError(f"{at}/containerPath", detail, "overlap"))
        if mapping.pattern and (problem := patterns.check(mapping.pattern)):
            wrong.append(FieldError(f"{at}/pattern", problem, "pattern"))
        if mapping.uploads and locations.TENANT not in mapping.template.split("/"):
            detail = "An upload's location needs ${tenantId} as a whole segment of prefix or sinkPath."
            wrong.append(FieldError(f"{at}/sinkPath", detail, "no_tenant"))
        area = locations.Area(
            *spec.resolved_sink().area(mapping.template),
            spec.pool_id,
            mapping.uploads,
            mapping.restores,
            f"mapping {index}",
        )
        if problem := locations.conflict(area, areas):
            wrong.append(FieldError(f"{at}/sinkPath", problem, "location_conflict"))
        areas.append(area)
        if mapping.restores:
            path = PurePosixPath(mapping.container_path)
            for other, taken in restoring:
                if path.is_relative_to(taken) or taken.is_relative_to(path):
                    detail = f"Mapping {other} restores into the same or a nested path."
                    wrong.append(FieldError(f"{at}/containerPath", detail, "overlap"))
            restoring.append((index, path))
    if wrong:
        raise Invalid(*wrong)


def check_workload(workload: Workload, spec: WorkloadSpec) -> list[FieldError]:
    """What sync specs have against a new spec of their pools' workload: every mapping keeps its volume."""
    wrong = []
    for mapping in SyncMapping.objects.filter(spec__pool__workload=workload).order_by("spec_id", "position"):
        found = spec.volume_of(mapping.container_path)
        if found is None or found[0].name == "secrets":
            detail = f"Sync spec {mapping.spec_id} maps {mapping.container_path}; no volume would hold it."
            wrong.append(FieldError("/volumes", detail, "mapped"))
        if inner := mounts.inside(spec, mapping.container_path):
            detail = f"Sync spec {mapping.spec_id} maps {mapping.container_path}, where {inner.name} would be mounted."
            wrong.append(FieldError("/volumes", detail, "mapped"))
    return wrong


def _areas_of_others(spec: SyncSpec) -> list[locations.Area]:
    rows = SyncMapping.objects.exclude(spec_id=spec.pk).select_related("spec__credential")
    return [
        locations.Area(
            *row.spec.resolved_sink().area(row.template),
            row.spec.pool_id,
            row.uploads,
            row.restores,
            f"sync spec {row.spec_id}, mapping {row.position}",
        )
        for row in rows
    ]


def delete_spec(spec: SyncSpec, *, held: bool, force: bool) -> None:
    """Forget a spec; what it saved stays in the sink. Raises CoverageHeld while tenants are held, without ``force``."""
    if held and not force:
        raise CoverageHeld
    with transaction.atomic():
        audit.record("sync_spec.delete", spec.pk, before=_audited(spec, list(spec.mappings.all())))
        spec.delete()


PROBE_DEADLINE_S = 8
"""Whoever makes a spec waits for its first probe."""
_probers = ThreadPoolExecutor(8, thread_name_prefix="probes")


def _try(sink: Sink) -> bool:
    sink.probe()
    return sink.has_conditional_writes()


def try_sink(sink: Sink) -> bool:
    """Write, read and delete one object there, within ``PROBE_DEADLINE_S``; whether it has conditional writes.

    Raises SyncFailed.
    """
    asked = _probers.submit(_try, sink)
    try:
        return asked.result(PROBE_DEADLINE_S)
    except TimeoutError:
        raise SinkUnreachable(f"The sink has not answered within {PROBE_DEADLINE_S} s.") from None


def probe(spec: SyncSpec) -> dict[str, Any]:
    """Write, read and delete at the sink, within ``PROBE_DEADLINE_S``.

    Stores and returns ``{state, checkedAt, conditionalWrites, code, detail}``.
    """
    now, began = timezone.now(), time.monotonic()
    health: dict[str, Any] = {"state": "healthy", "checkedAt": now.isoformat().replace("+00:00", "Z")}
    try:
        health["conditionalWrites"] = try_sink(spec.resolved_sink())
    except SyncFailed as error:
        health |= {"state": "unhealthy", "code": error.code, "detail": error.detail}
        health |= {name: spec.sink_health[name] for name in ("conditionalWrites",) if name in spec.sink_health}
    except Exception as error:  # the spec is stored by now: whoever made it must not be told that it is not
        log.error("probe failed", spec=spec.pk, exc_info=True)
        detail = f"The sink could not be tried ({type(error).__name__}); the log says more."
        health |= {"state": "unhealthy", "code": SyncFailed.code, "detail": detail}
    took_ms = round(1000 * (time.monotonic() - began))
    with recording():
        was = SyncSpec.objects.filter(pk=spec.pk).values_list("sink_health", flat=True).first() or {}
        SyncSpec.objects.filter(pk=spec.pk).update(sink_health=health)
        SinkProbe.objects.create(
            spec=spec,
            at=now,
            is_healthy=health["state"] == "healthy",
            code=health.get("code", ""),
            detail=health.get("detail", ""),
            duration_ms=took_ms,
        )
        if was.get("state") != health["state"] and (was or health["state"] == "unhealthy"):
            kind = "pool.warning" if health["state"] == "unhealthy" else "pool.recovered"
            emit(kind, pool_id=spec.pool_id, specId=spec.pk, sink=health["state"], detail=health.get("detail", ""))
    spec.sink_health = health
    return health


def specs_to_save(pool_id: str, sync: bool | None) -> list[SyncSpec]:
    """Specs whose uploads a release runs: those with onRelease, all (True), or none (False)."""
    if sync is False:
        return []
    specs = SyncSpec.objects.filter(pool_id=pool_id).select_related("credential").prefetch_related("mappings")
    if sync is None:
        specs = specs.filter(on_release=True)
    return [spec for spec in specs.order_by("id") if _upload_mappings(spec)]


def mappings_to_restore(pool_id: str) -> list[SyncMapping]:
    """What is restored on claim, in the order of specs and positions."""
    mappings = SyncMapping.objects.filter(spec__pool_id=pool_id, spec__on_claim=True)
    mappings = mappings.select_related("spec__credential").order_by("spec_id", "position")
    return [mapping for mapping in mappings if mapping.restores]


def specs_for(pool_id: str, direction: Direction) -> list[SyncSpec]:
    """Specs with a mapping of that direction, for a manual run."""
    specs = SyncSpec.objects.filter(pool_id=pool_id).select_related("credential").prefetch_related("mappings")
    wanted = "uploads" if direction == Direction.UPLOAD else "restores"
    return [spec for spec in specs.order_by("id") if any(getattr(m, wanted) for m in spec.mappings.all())]


def _upload_mappings(spec: SyncSpec) -> Iterable[SyncMapping]:
    return [mapping for mapping in spec.mappings.all() if mapping.uploads]
