"""Sync specs: the list, one with its runs and its sink's health, and its editor."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from boilerhouse.core.errors import BoilerhouseError, Conflict, FieldError, Invalid, PreconditionFailed
from boilerhouse.core.ids import check_same_id
from boilerhouse.core.models import Role
from boilerhouse.dashboard import badges, conflicts, consequences, needs, saved_toast
from boilerhouse.dashboard.access import action, back, form_page, page, slow
from boilerhouse.dashboard.documents import Document, get
from boilerhouse.dashboard.forms import check_version, version_of
from boilerhouse.dashboard.listing import Choice, Listing
from boilerhouse.dashboard.pages.sync import checked, with_badges
from boilerhouse.dashboard.sections import sync_specs as sections
from pools.models import Pool
from syncing import places, services
from syncing.api.serializers import SyncSpecInput, render_spec
from syncing.models import Credential, SyncMapping, SyncRun, SyncSpec
from syncing.services import find_spec
from tenants import previews, syncs, upkeep
from tenants.models import Assignment
from tenants.states import AssignmentState

RUNS = 25
SAVE_WORKS = "A test save and restore succeeded. The test files were deleted."
TENANTS_OFFERED = 50


@page()
def spec_list(request: HttpRequest) -> HttpResponse:
    pools = [(pk, pk) for pk in Pool.objects.order_by("pk").values_list("pk", flat=True)]
    rows = Listing(
        request,
        SyncSpec.objects.prefetch_related("mappings"),
        choices=[Choice("pool", "pool", "pool_id", pools)],
        search=["id", "name"],
        sorts={"id": "pk", "pool": "pool_id", "changed": "updated_at"},
        default="id",
    )
    lines = [(spec, badges.sink(spec), list(spec.mappings.all())) for spec in rows]
    return render(request, "pages/sync_specs.html", {"list": rows, "lines": lines})


@page()
def spec(request: HttpRequest, spec_id: str) -> HttpResponse:
    spec = find_spec(spec_id)
    runs = SyncRun.objects.filter(spec=spec)
    [(_, health, strip)] = checked([spec])
    context: dict[str, Any] = {
        "spec": spec, "aliases": sorted(places.names_of(spec) - {places.spelling(spec)}),
        "mappings": list(spec.mappings.all()), "badge": health, "strip": strip,
        "is_refused": spec.place_state in places.REFUSED,
        "checked_at": parse_datetime(str(spec.sink_health.get("checkedAt", ""))),
        "runs": with_badges(runs.order_by("-created_at")[:RUNS]),
        "failed": runs.failed().filter(created_at__gte=timezone.now() - timedelta(hours=24)).count(),
        "needs": needs.of_spec(request, spec.pk),
    }  # fmt: skip
    return render(request, "pages/sync_spec.html", context)


def _editor(request: HttpRequest, document: Document, spec: SyncSpec | None, mark: str, **more: Any) -> HttpResponse:
    pool_id = spec.pool_id if spec else str(get(document.value, "/poolId") or "")
    at_work = Assignment.objects.filter(pool_id=pool_id, state=AssignmentState.ASSIGNED).order_by("tenant_id")
    context = {
        "document": document, "spec": spec, "seen": mark, "tenants": list(at_work[:TENANTS_OFFERED]),
        "tenant": request.POST.get("tenant", ""), "paths": request.POST.get("paths", ""), **more,
    }  # fmt: skip
    answer = render(request, "pages/sync_spec_edit.html", context, status=document.status)
    answer["Cache-Control"] = "no-store"
    return answer


def _rendered(spec: SyncSpec) -> dict[str, Any]:
    """The editable part of a spec."""
    return {name: value for name, value in render_spec(spec).items() if name not in SyncSpecInput.read_only_ignored}


@page(Role.OPERATOR)
def _open(request: HttpRequest, spec_id: str | None) -> HttpResponse:
    spec = find_spec(spec_id) if spec_id else None
    if spec is not None:
        value = _rendered(spec)
    else:
        first = Pool.objects.order_by("pk").values_list("pk", flat=True).first()
        if first is None:
            return render(request, "pages/sync_spec_without_pool.html")
        value = sections.start(request.GET.get("pool") or first or "")
    document = Document(value, sections.sections_of(is_new=spec is None), tab=request.GET.get("tab", "form"))
    return _editor(request, document, spec, version_of(value) if spec else "")


@action()
def _save(request: HttpRequest, spec_id: str | None) -> HttpResponse:
    spec = find_spec(spec_id) if spec_id else None
    mark = request.POST.get("seen", "")
    document = Document.posted(request.POST, sections.sections_of(is_new=spec is None))
    more: dict[str, Any] = {}
    if spec is not None and (keeps_mine := conflicts.wish(request)) is not None:
        document.combine(_rendered(spec), keeps_mine=keeps_mine)
        return _editor(request, document, spec, version_of(_rendered(spec)), is_combined=True)
    if document.tab == "form" and document.do in ("save", "probe"):
        sections.drop_other_kinds(document.value)
    match document.do:
        case "save":
            saved = _store(request, document, spec, mark)
            if saved is not None:
                return HttpResponseRedirect(reverse("sync-spec", args=[saved]), status=303)
            more["may_force"] = any(error.code == "coverage_held" for error in document.errors)
        case "probe":
            more["probed"] = _probe_typed(document, spec)
        case "preview":
            more["previews"], more["preview_error"] = _preview(request, document, spec)
    return _editor(request, document, spec, mark, **more)


new_spec = slow(form_page(_open, _save, spec_id=None))
edit_spec = slow(form_page(_open, _save))


def _store(request: HttpRequest, document: Document, spec: SyncSpec | None, mark: str) -> str | None:
    """The id of the saved spec; None if there are errors, which the document then shows."""
    body = document.read(SyncSpecInput, context={"stored": spec} if spec else {})
    if body is None:
        return None
    data = body.validated_data
    try:
        if spec is None:
            pool = Pool.objects.select_related("workload").filter(pk=data["pool_id"]).first()
            if pool is None:
                raise Invalid(FieldError("/poolId", "There is no such pool.", "not_found"))
            new_spec = services.create_spec(id=data.get("id"), name=data.get("name"), pool=pool, **body.parts())
            saved_toast.tell(
                request, f"Sync spec {new_spec.pk} created. It takes effect with the next claim.", new_spec.pk
            )
            return str(new_spec.pk)
        check_same_id(data, spec.pk)
        if data["pool_id"] != spec.pool_id:
            raise Invalid(FieldError("/poolId", f"A sync spec keeps its pool ({spec.pool_id}).", "fixed"))
        services.update_spec(
            spec, name=data.get("name"), force=request.POST.get("force") == "yes",
            check=lambda locked: check_version(mark, _rendered(locked)), **body.parts(),
        )  # fmt: skip
    except PreconditionFailed:
        assert spec is not None
        document.meet(_rendered(find_spec(spec.pk)), *conflicts.last_change("sync_spec", spec.pk))
        return None
    except (Invalid, Conflict) as error:
        document.add(error)
        return None
    saved_toast.tell(request, f"{spec.pk} saved.", spec.pk)
    return str(spec.pk)


def _probe_typed(document: Document, spec: SyncSpec | None) -> tuple[bool, str] | None:
    """Whether a save to the sink in the form would work, with a message."""
    body = document.read(SyncSpecInput, context={"stored": spec} if spec else {})
    if body is None:
        return None
    parts = body.parts()
    credential = Credential.objects.filter(pk=parts["credential_id"]).first()
    typed = SyncSpec(sink=parts["sink"], sink_secrets=parts["sink_secrets"], credential=credential)
    if spec is not None:
        typed.id, typed.located_at = spec.pk, spec.located_at
    mappings = [SyncMapping(spec=typed, position=i, **mapping) for i, mapping in enumerate(parts["mappings"])]
    try:
        places.check_typed(typed, mappings)
        by_transfer = services.try_sink(typed.resolved_sink(), mappings)
    except BoilerhouseError as error:
        return False, error.detail
    return True, SAVE_WORKS if by_transfer else (
        "A test file was written, read and deleted. A worker tests a whole save when the spec is saved: this process"
        " is not allowed to."
    )


def _preview(request: HttpRequest, document: Document, spec: SyncSpec | None) -> tuple[list[previews.Matched], str]:
    """The files that each mapping matches: of an assigned tenant, or of entered paths."""
    items = get(document.value, "/mappings")
    rows = [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    mappings = [(str(item.get("containerPath") or ""), str(item.get("pattern") or "")) for item in rows]
    tenant_id = request.POST.get("tenant", "")
    if not tenant_id:
        return previews.matches_among(request.POST.get("paths", "").split(), mappings), ""
    pool_id = spec.pool_id if spec else str(get(document.value, "/poolId") or "")
    try:
        return previews.matches_of_tenant(tenant_id, pool_id, mappings), ""
    except BoilerhouseError as error:
        return [], error.detail


@action(asks=consequences.delete_spec)
def delete_spec(request: HttpRequest, spec_id: str) -> HttpResponse:
    spec = find_spec(spec_id)
    services.delete_spec(spec, force=True)
    messages.success(request, f"{spec_id} deleted. Saved state stays in the sink.")
    return HttpResponseRedirect(reverse("sync"), status=303)


@slow
@action(acts="Writes to the sink; its result is stored, and shown on the spec's page.")
def probe(request: HttpRequest, spec_id: str) -> HttpResponse:
    """Test the sink now with the steps of a save and a restore."""
    upkeep.probe_sink(find_spec(spec_id).pk)
    spec = find_spec(spec_id)
    if spec.sink_health.get("state") == "healthy":
        messages.success(request, SAVE_WORKS)
    else:
        messages.error(request, f"Nothing can be saved there: {saved_toast.why(spec).text}")
    return back(request)


@action(asks=consequences.trigger_spec)
def trigger(request: HttpRequest, spec_id: str) -> str:
    run = syncs.trigger(find_spec(spec_id), "outward", None)
    return f"{len(run)} save{'s' if len(run) != 1 else ''} queued."
