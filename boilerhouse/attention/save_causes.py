"""Causes of state that is not saved: sinks, then what concerns single tenants.

One entry per sink: its specs, the released tenants that wait for it and the periodic saves that are overdue because of
it are its effects.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from django.core.cache import cache
from django.db.models import Min, OuterRef, Q, QuerySet, Subquery, Value
from django.db.models.functions import Coalesce

from boilerhouse.attention.cause import Cause, Kind, Severity, Thing
from boilerhouse.attention.words import age, count, listed
from boilerhouse.core import clock
from boilerhouse.core.deployment import node_id
from syncing import places
from syncing.errors import DirectoryMissing, LocationConflict, PlaceChanged
from syncing.models import SinkProbe, SyncRun, SyncSpec
from syncing.sink_words import OF_SINKS, Remedy, explain
from syncing.states import PlaceState, Trigger
from tenants import syncs
from tenants.models import Assignment
from tenants.states import AssignmentState, ReleaseStep

LATE, COUNTED_S = "overdue-specs", 15
MOST = 1000
"""How many unsaved tenants are read."""
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
OWN = frozenset({Remedy.FILES, Remedy.NODE})
"""What has to change is not at the sink, whatever the state of the sink."""


@dataclass(slots=True)
class _Sink:
    """One sink, with everything that waits for it."""

    specs: list[SyncSpec] = field(default_factory=list)
    failing: list[SyncSpec] = field(default_factory=list)
    unsaved: list[Any] = field(default_factory=list)
    overdue: list[syncs.PeriodicSave] = field(default_factory=list)


def unsaved() -> QuerySet[Assignment]:
    """Released tenants whose state is not saved, also while the save is being retried, longest first.

    Each with ``failed_spec`` and ``failed_at``: the spec of the last failed run, and the time of the first.
    """
    retried = Q(state=AssignmentState.RELEASING, attempt__gt=0, discard=False) & Q(
        step__in=[ReleaseStep.STOPPING, ReleaseStep.SAVING]
    )
    runs = SyncRun.objects.failed().filter(
        tenant_id=OuterRef("tenant_id"), generation=OuterRef("generation"), trigger=Trigger.RELEASE
    )
    rows = Assignment.objects.filter(Q(state=AssignmentState.RELEASE_FAILED) | retried).annotate(
        failed_spec=Subquery(runs.order_by("-created_at").values("spec_id")[:1]),
        failed_at=Coalesce(Subquery(runs.order_by("created_at").values("finished_at")[:1]), "state_changed_at"),
    )
    columns = (
        "pk", "tenant_id", "pool_id", "state", "outcome", "outcome_detail", "directory_node", "attempt",
        "next_attempt_at", "state_changed_at",
    )  # fmt: skip
    return rows.only(*columns).order_by("failed_at")


def present() -> list[Cause]:
    """The causes of everything that is not saved now."""
    specs = {spec.pk: spec for spec in SyncSpec.objects.defer("sink_secrets").order_by("pk")}
    sinks: dict[str, _Sink] = defaultdict(_Sink)
    refused: dict[str, _Sink] = defaultdict(_Sink)
    alone: dict[tuple[str, str, str], list[Any]] = defaultdict(list)
    late: dict[str, list[syncs.PeriodicSave]] = defaultdict(list)
    for spec in specs.values():
        sinks[places.key(spec)].specs.append(spec)
        if is_refused(spec):
            refused[spec.pk].failing.append(spec)
        elif spec.sink_health.get("state") == "unhealthy":
            sinks[places.key(spec)].failing.append(spec)
    row: Any
    for row in unsaved()[:MOST]:
        _place(row, specs.get(row.failed_spec), sinks, refused, alone)
    now = clock.now()
    for save in _overdue():
        if save.spec.pk in refused:
            refused[save.spec.pk].overdue.append(save)
        elif sinks[places.key(save.spec)].failing:
            sinks[places.key(save.spec)].overdue.append(save)
        else:
            late[save.spec.pk].append(save)
    since = _failing_since([spec for sink in sinks.values() for spec in sink.failing])
    causes = [_of_sink(key, sink, since, now) for key, sink in sinks.items() if sink.failing]
    causes += [_waiting_for(key, sink) for key, sink in sinks.items() if sink.unsaved and not sink.failing]
    causes += [_of_refused(specs[pk], sink, now) for pk, sink in refused.items()]
    causes += [_of_tenants(rows) for rows in alone.values()]
    return causes + [_of_overdue(specs[pk], saves, now) for pk, saves in late.items()]


def alerts() -> int:
    """How many sinks fail, and how many further specs have overdue saves: fit for a badge of every page.

    The overdue ones are counted at most every ``COUNTED_S`` seconds by each process.
    """
    columns = ("pk", "sink", "place", "place_state", "sink_health")
    specs = SyncSpec.objects.filter(Q(sink_health__state="unhealthy") | Q(place_state__in=places.REFUSED))
    sinks = {places.key(spec) for spec in specs.only(*columns)}
    late: list[tuple[str, str]] | None = cache.get(LATE)
    if late is None:
        _overdue()
        late = cache.get(LATE, [])
    return len(sinks) + len({pk for pk, sink in late if sink not in sinks})


def _overdue() -> list[syncs.PeriodicSave]:
    """The overdue saves, whose specs are kept for ``alerts``."""
    now = clock.now()
    overdue = [save for save in syncs.periodic_saves() if save.is_overdue(now)]
    specs = {save.spec.pk: save.spec for save in overdue}
    cache.set(LATE, [(pk, places.key(spec)) for pk, spec in specs.items()], COUNTED_S)
    return overdue


def is_refused(spec: SyncSpec) -> bool:
    """Whether the spec may not use its place, whatever the last probe of its sink found."""
    return PlaceState(spec.place_state) in places.REFUSED


def _place(
    row: Any, spec: SyncSpec | None, sinks: dict[str, _Sink], refused: dict[str, _Sink],
    alone: dict[tuple[str, str, str], list[Any]],
) -> None:  # fmt: skip
    """Put an unsaved tenant to its cause."""
    if spec is not None and is_refused(spec):
        refused[spec.pk].unsaved.append(row)
        return
    if spec is not None:
        sink = sinks[places.key(spec)]
        is_own = explain(row.outcome, row.outcome_detail).remedy in OWN
        if row.outcome in OF_SINKS or (sink.failing and not is_own):
            sink.unsaved.append(row)
            return
    alone[row.pool_id, row.outcome, row.outcome_detail].append(row)


def _failing_since(specs: list[SyncSpec]) -> dict[str, datetime]:
    """The first failed probe after the last good one, of each spec."""
    if not specs:
        return {}
    good = SinkProbe.objects.filter(spec=OuterRef("spec"), is_healthy=True).order_by("-at").values("at")[:1]
    probes = SinkProbe.objects.filter(spec__in=[spec.pk for spec in specs], is_healthy=False)
    later = probes.filter(at__gt=Coalesce(Subquery(good), Value(LONG_AGO)))
    return dict(later.order_by().values_list("spec_id").annotate(Min("at")))


def _of_sink(key: str, sink: _Sink, since: dict[str, datetime], now: datetime) -> Cause:
    first = min(sink.failing, key=lambda spec: since.get(spec.pk, spec.updated_at))
    health = first.sink_health
    code, detail = str(health.get("code") or ""), str(health.get("detail") or "")
    why = explain(code, detail, str(first.sink.get("type") or ""))
    others = len(sink.failing) - 1
    return Cause(
        key=f"sink:{key}",
        kind=Kind.SINK_DOWN,
        what="{} cannot save" if not others else f"{{}} and {count(others, 'other sync spec')} cannot save",
        thing=Thing.SYNC_SPEC,
        subject=first.pk,
        why=why.text,
        effect=" ".join(filter(None, [_waits(sink.unsaved), _at_risk(sink.overdue, now), _restores(sink.failing)])),
        detail=detail,
        since=since.get(first.pk, first.updated_at),
        **_affected(sink.failing, sink),
        credential_id=first.credential_id or "",
        remedy=why.remedy,
    )


def _waiting_for(key: str, sink: _Sink) -> Cause:
    """The sink answers again, and the saves that it refused are still to come."""
    row = sink.unsaved[-1]
    why = explain(row.outcome, row.outcome_detail, _kind_of(sink, row))
    return Cause(
        **_unsaved(f"unsaved:{key}", sink.unsaved),
        why=f"The last attempt failed: {why.text} The sink is healthy now, and the saves are retried.",
        effect=_waits(sink.unsaved),
        detail=row.outcome_detail,
        remedy=Remedy.RETRY,
        spec_ids=tuple(sorted({str(row.failed_spec) for row in sink.unsaved})),
    )


def _kind_of(sink: _Sink, row: Any) -> str:
    return next((str(spec.sink.get("type") or "") for spec in sink.specs if spec.pk == row.failed_spec), "")


def _of_refused(spec: SyncSpec, sink: _Sink, now: datetime) -> Cause:
    code = LocationConflict.code if spec.place_state == PlaceState.CONFLICT else PlaceChanged.code
    why = explain(code, "")
    waiting = [row.failed_at for row in sink.unsaved]
    return Cause(
        key=f"place:{spec.pk}",
        kind=Kind.SINK_DOWN,
        what="{} is blocked",
        thing=Thing.SYNC_SPEC,
        subject=spec.pk,
        why=f"{why.text} {spec.place_detail}".strip(),
        effect=" ".join(filter(None, [_waits(sink.unsaved), _at_risk(sink.overdue, now), _restores([spec])])),
        since=min([_failing_since([spec]).get(spec.pk, spec.updated_at), *waiting]),
        **_affected([spec], sink),
        remedy=why.remedy,
    )


def _of_tenants(rows: list[Any]) -> Cause:
    """What is not about a sink: the same error of one tenant or several."""
    first = rows[0]
    why = explain(first.outcome, first.outcome_detail)
    is_lost = first.outcome == DirectoryMissing.code
    return Cause(
        **_unsaved(f"unsaved:{first.tenant_id}", rows),
        why=f"{why.text} {first.outcome_detail}".strip(),
        effect="" if is_lost else _waits(rows),
        remedy=why.remedy,
        spec_ids=tuple(sorted({str(row.failed_spec) for row in rows if row.failed_spec})),
    )


def _unsaved(key: str, rows: list[Any]) -> dict[str, Any]:
    """The parts of a cause about tenants whose state is not saved."""
    pools = sorted({row.pool_id for row in rows})
    one = len(rows) == 1
    return {
        "key": key,
        "kind": Kind.STATE_NOT_SAVED,
        "what": "State of {} is not saved" if one else f"State of {count(len(rows), 'tenant')} of {{}} is not saved",
        "thing": Thing.TENANT if one else Thing.POOL,
        "subject": rows[0].tenant_id if one else pools[0],
        "since": rows[0].failed_at,
        "pool_ids": tuple(pools),
        "unsaved": tuple(row.tenant_id for row in rows),
    }


def _of_overdue(spec: SyncSpec, saves: list[syncs.PeriodicSave], now: datetime) -> Cause:
    tenants = tuple(save.assignment.tenant_id for save in saves)
    oldest = min(saves, key=lambda save: save.unsaved_since)
    last = SyncRun.objects.filter(spec=spec, tenant_id=oldest.assignment.tenant_id).order_by("-created_at").first()
    why = f"No complete save for {age((now - oldest.unsaved_since).total_seconds())}"
    remedy = Remedy.RETRY
    if last is not None and last.error_code:
        cause = explain(last.error_code, last.error_detail, str(spec.sink.get("type") or ""))
        why, remedy = f"{why}. The last attempt failed: {cause.text.removesuffix('.')}", cause.remedy
    return Cause(
        key=f"overdue:{spec.pk}",
        kind=Kind.SAVE_OVERDUE,
        severity=Severity.WARNING,
        what="Saves of {} are overdue",
        thing=Thing.SYNC_SPEC,
        subject=spec.pk,
        why=f"{why}.",
        effect=_at_risk(saves, now),
        detail=last.error_detail if last is not None else "",
        since=oldest.unsaved_since,
        pool_ids=(spec.pool_id,),
        spec_ids=(spec.pk,),
        overdue=tenants,
        remedy=remedy,
    )


def _affected(specs: Iterable[SyncSpec], sink: _Sink) -> dict[str, Any]:
    pools = {spec.pool_id for spec in specs} | {row.pool_id for row in sink.unsaved}
    return {
        "pool_ids": tuple(sorted(pools)),
        "spec_ids": tuple(spec.pk for spec in specs),
        "unsaved": tuple(row.tenant_id for row in sink.unsaved),
        "overdue": tuple(save.assignment.tenant_id for save in sink.overdue),
    }


def _waits(rows: Sequence[Any]) -> str:
    """How many tenants wait for a save, where their state is, and how many are being saved now."""
    if not rows:
        return ""
    nodes = {row.directory_node for row in rows} - {""}
    where = "this node" if nodes <= {node_id()} else listed(sorted(nodes))
    one = len(rows) == 1
    text = f"{count(len(rows), 'tenant')} {'waits' if one else 'wait'}. {'Its' if one else 'Their'} state is safe"
    trying = sum(row.state == AssignmentState.RELEASING for row in rows)
    return f"{text} on {where}." + (
        f" {count(trying, 'save')} {'is' if trying == 1 else 'are'} being retried now." * bool(trying)
    )


def _at_risk(saves: Sequence[syncs.PeriodicSave], now: datetime) -> str:
    if not saves:
        return ""
    oldest = min(save.unsaved_since for save in saves)
    who = saves[0].assignment.tenant_id if len(saves) == 1 else count(len(saves), "tenant")
    return f"{who} would lose changes of the last {age((now - oldest).total_seconds())} if the node were lost now."


def _restores(specs: Sequence[SyncSpec]) -> str:
    pools = sorted({spec.pool_id for spec in specs if spec.on_claim})
    return f"Claims of {listed(pools)} that restore state fail." if pools else ""
