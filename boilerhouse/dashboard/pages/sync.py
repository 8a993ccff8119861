"""Sync: what runs now, what has run, and how the sinks are."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone

from boilerhouse.core.errors import Conflict, FieldError, Invalid, PreconditionFailed
from boilerhouse.core.models import Role
from boilerhouse.dashboard import tones
from boilerhouse.dashboard.access import action, back, page, require_typed, slow
from boilerhouse.dashboard.forms import JsonForm, as_json, check_seen, seen
from boilerhouse.dashboard.listing import Choice, Listing
from boilerhouse.dashboard.overview import sync_needs
from pools.models import Pool
from syncing import services
from syncing.api.serializers import SyncSpecInput, render_spec
from syncing.api.views import find_spec, is_held
from syncing.models import SinkProbe, SyncRun, SyncSpec
from syncing.states import SyncRunState, Trigger
from tenants import syncs, upkeep

UNFINISHED = (SyncRunState.RUNNING, SyncRunState.QUEUED)
SHOWN_RUNNING = 20
PROBES = 48
SERVER_OWNED = ("version", "sinkHealth", "createdAt", "updatedAt")
START: dict[str, Any] = {
    "mappings": [{"containerPath": "/state", "sinkPath": "state/", "direction": "bidirectional", "mode": "sync"}],
    "sink": {"type": "s3", "bucket": "", "region": "", "prefix": "t/${tenantId}/", "credentialId": ""},
    "policy": {"onClaim": True, "onRelease": True, "intervalMs": 300000, "allowManualTrigger": True},
}


def _said(runs: Any) -> list[tuple[SyncRun, tones.Said, str]]:
    return [(run, tones.RUN[SyncRunState(run.state)], tones.run_verb(run)) for run in runs]


def _probes(specs: list[SyncSpec]) -> list[tuple[SyncSpec, tones.Said, list[SinkProbe]]]:
    """Each spec with its last probes, oldest first."""
    since = timezone.now() - timedelta(hours=24)
    rows: dict[str, list[SinkProbe]] = defaultdict(list)
    for probe in SinkProbe.objects.filter(spec__in=specs, at__gte=since).order_by("at"):
        rows[probe.spec_id].append(probe)
    return [(spec, tones.sink(spec), rows[spec.pk][-PROBES:]) for spec in specs]


@page()
def monitor(request: HttpRequest) -> HttpResponse:
    day = timezone.now() - timedelta(hours=24)
    specs = list(SyncSpec.objects.order_by("pk"))
    unfinished = SyncRun.objects.filter(state__in=UNFINISHED).order_by("state", "created_at")
    finished = SyncRun.objects.exclude(state__in=UNFINISHED)
    totals = SyncRun.objects.filter(created_at__gte=day).aggregate(
        all=Count("pk"), failed=Count("pk", filter=Q(state=SyncRunState.FAILED))
    )
    states = [(state.value, tones.RUN[state].word) for state in SyncRunState if state not in UNFINISHED]
    rows = Listing(
        request,
        finished,
        choices=[
            Choice("state", "result", "state", states),
            Choice("spec", "spec", "spec_id", [(spec.pk, spec.pk) for spec in specs]),
            Choice("trigger", "trigger", "trigger", Trigger.choices),
        ],
        search=["tenant_id", "error_detail"],
        sorts={"tenant": "tenant_id", "ended": "finished_at", "spec": "spec_id", "result": "state"},
        default="-ended",
    )
    count = unfinished.count()
    context: dict[str, Any] = {
        "list": rows, "runs": _said(rows), "running": _said(unfinished[:SHOWN_RUNNING]), "count": count,
        "totals": totals, "sinks": _probes(specs), "needs": sync_needs(),
    }  # fmt: skip
    return render(request, "pages/sync.html", context)


@page()
def spec(request: HttpRequest, spec_id: str) -> HttpResponse:
    found = find_spec(spec_id)
    runs = SyncRun.objects.filter(spec=found)
    _, said, probes = _probes([found])[0]
    context: dict[str, Any] = {
        "spec": found, "mappings": list(found.mappings.all()), "said": said, "probes": probes,
        "runs": _said(runs.order_by("-created_at")[:25]),
        "failed": runs.filter(state=SyncRunState.FAILED, created_at__gte=timezone.now() - timedelta(hours=24)).count(),
    }  # fmt: skip
    return render(request, "pages/sync_spec.html", context)


def _editor(
    request: HttpRequest, form: JsonForm, found: SyncSpec | None, mark: str, status: int = 200, **more: Any
) -> HttpResponse:
    context = {"form": form, "spec": found, "seen": mark, **more}
    return render(request, "pages/sync_spec_edit.html", context, status=status)


@slow
def new_spec(request: HttpRequest) -> HttpResponse:
    return _create(request) if request.method == "POST" else _new(request)


@page(Role.OPERATOR)
def _new(request: HttpRequest) -> HttpResponse:
    pool_id = request.GET.get("pool") or Pool.objects.order_by("pk").values_list("pk", flat=True).first()
    return _editor(request, JsonForm(as_json({"poolId": pool_id or "", **START})), None, "")


@action()
def _create(request: HttpRequest) -> HttpResponse:
    form = JsonForm(request.POST.get("json", ""))
    body = form.read(SyncSpecInput)
    if body is not None:
        data = body.validated_data
        try:
            pool = Pool.objects.select_related("workload").filter(pk=data["pool_id"]).first()
            if pool is None:
                raise Invalid(FieldError("/poolId", "There is no such pool.", "not_found"))
            made = services.create_spec(id=data.get("id"), name=data.get("name"), pool=pool, **body.parts())
        except (Invalid, Conflict) as error:
            form.add(error)
        else:
            messages.success(request, f"{made.pk} saves and restores from the next claim on.")
            return HttpResponseRedirect(reverse("sync-spec", args=[made.pk]), status=303)
    return _editor(request, form, None, "", 422)


@slow
def edit_spec(request: HttpRequest, spec_id: str) -> HttpResponse:
    return _save(request, spec_id) if request.method == "POST" else _edit(request, spec_id)


def _shown(found: SyncSpec) -> dict[str, Any]:
    """What of a spec can be changed."""
    return {name: value for name, value in render_spec(found).items() if name not in SERVER_OWNED}


@page(Role.OPERATOR)
def _edit(request: HttpRequest, spec_id: str) -> HttpResponse:
    found = find_spec(spec_id)
    return _editor(request, JsonForm(as_json(_shown(found))), found, seen(_shown(found)))


@action()
def _save(request: HttpRequest, spec_id: str) -> HttpResponse:
    found = find_spec(spec_id)
    mark = request.POST.get("seen", "")
    force = request.POST.get("force") == "yes"
    form = JsonForm(request.POST.get("json", ""))
    body = form.read(SyncSpecInput, context={"stored": found})
    may_force = False
    if body is not None:
        data = body.validated_data
        try:
            if data.get("id", spec_id) != spec_id:
                raise Invalid(FieldError("/id", f"The id stays {spec_id}.", "fixed"))
            if data["pool_id"] != found.pool_id:
                raise Invalid(FieldError("/poolId", f"A sync spec keeps its pool ({found.pool_id}).", "fixed"))
            services.update_spec(
                found, name=data.get("name"), held=is_held(found), force=force,
                check=lambda locked: check_seen(mark, _shown(locked)), **body.parts(),
            )  # fmt: skip
        except (Invalid, Conflict, PreconditionFailed) as error:
            may_force = error.code == "coverage_held"
            form.add(error)
        else:
            messages.success(request, f"{spec_id} is saved.")
            return HttpResponseRedirect(reverse("sync-spec", args=[spec_id]), status=303)
    return _editor(request, form, found, mark, 422, may_force=may_force)


@action()
def delete_spec(request: HttpRequest, spec_id: str) -> HttpResponse:
    require_typed(request, spec_id, "deleted")
    found = find_spec(spec_id)
    services.delete_spec(found, held=is_held(found), force=True)
    messages.success(request, f"{spec_id} is deleted. What it saved stays in the sink.")
    return HttpResponseRedirect(reverse("sync"), status=303)


@slow
@action()
def probe(request: HttpRequest, spec_id: str) -> HttpResponse:
    """Write, read and delete one object at the sink now."""
    found = find_spec(spec_id)
    upkeep.probe_sink(found.pk)
    health = find_spec(spec_id).sink_health
    if health.get("state") == "healthy":
        messages.success(request, "The sink took a write, gave it back and deleted it.")
    else:
        messages.error(request, f"The sink fails its probe: {health.get('detail', 'no reason is known')}")
    return back(request)


@action()
def cancel(request: HttpRequest, run_id: UUID) -> str:
    run = syncs.cancel(run_id)
    return f"{tones.run_verb(run)} of {run.tenant_id} is being cancelled; what it had begun at the sink is taken back."


@action()
def trigger(request: HttpRequest, spec_id: str) -> str:
    made = syncs.trigger(find_spec(spec_id), "outward", None)
    return f"{len(made)} save{'s' if len(made) != 1 else ''} queued."
