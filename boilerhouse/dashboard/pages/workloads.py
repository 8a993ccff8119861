"""Workloads: the list, one with its spec, versions and pools, and its editor."""

from __future__ import annotations

import difflib
import json
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse

from boilerhouse.api.parsers import check_body
from boilerhouse.core import text
from boilerhouse.core.bounds import MAX_ID, natural
from boilerhouse.core.errors import Conflict, FieldError, Invalid, PreconditionFailed
from boilerhouse.core.ids import check_same_id
from boilerhouse.core.models import Role
from boilerhouse.dashboard import conflicts, consequences, workload_versions
from boilerhouse.dashboard.access import action, form_page, page, slow
from boilerhouse.dashboard.documents import Document, Sections
from boilerhouse.dashboard.forms import as_json, check_version, version_of
from boilerhouse.dashboard.listing import Listing
from boilerhouse.dashboard.sections import workloads as sections
from pools import dry_runs, services, tags
from pools.api.serializers import WorkloadInput, render_spec, render_workload
from pools.models import Workload
from pools.services import find_workload
from pools.spec import WorkloadSpec
from tenants import validation
from tenants.models import Assignment

MAX_COMPARED = 5000
"""The maximum lines of two versions, because the comparison takes their product."""
MAX_TENANTS, MAX_CONFIG_BYTES = 500, 4 << 20


@page()
def workload_list(request: HttpRequest) -> HttpResponse:
    rows = Listing(
        request,
        Workload.objects.with_latest().prefetch_related("pools"),
        search=["id", "name"],
        sorts={"id": "id", "name": "name", "changed": "updated_at"},
        default="id",
    )
    lines = [(workload, render_workload(workload), [pool.pk for pool in workload.pools.all()]) for workload in rows]
    return render(request, "pages/workloads.html", {"list": rows, "lines": lines})


@page()
def workload(request: HttpRequest, workload_id: str) -> HttpResponse:
    workload = find_workload(workload_id)
    shown, form = render_workload(workload), sections.sections_of(is_new=False)
    versions = workload_versions.of(workload, form)
    newest = versions[0].version
    tab = "json" if request.GET.get("tab") == "json" else "summary"
    context: dict[str, Any] = {
        "workload": workload, "shown": shown, "versions": versions, "tab": tab,
        "is_fixed": tags.is_fixed(newest), "rolls": newest.spec.rolls_to_new_images,
        "pools": list(workload.pools.order_by("pk").values_list("pk", flat=True)),
        **_comparison(request, workload, form),
    }  # fmt: skip
    if tab == "json":
        context["spec"] = _spec_text(newest.spec)
    else:
        context["groups"] = workload_versions.facts(_editable(workload), form)
    return render(request, "pages/workload.html", context)


def _comparison(request: HttpRequest, workload: Workload, form: Sections) -> dict[str, Any]:
    """The difference between the two versions that the URL names; nothing if there is no such version."""
    numbers = [natural(request.GET.get(name, ""), MAX_ID) for name in ("compare", "to")]
    newest = workload.latest
    old = workload.versions.filter(number=numbers[0]).first() if numbers[0] else None
    new = (workload.versions.filter(number=numbers[1]).first() if numbers[1] else None) or newest
    if old is None:
        return {}
    return {
        "old": old, "new": new, "differences": workload_versions.changes(old, new, form),
        "diff": _diff(old.spec, new.spec),
    }  # fmt: skip


def _spec_text(spec: WorkloadSpec) -> str:
    return as_json(render_spec(spec))


def _diff(old: WorkloadSpec, new: WorkloadSpec) -> list[tuple[str, str]]:
    """Lines with their kind: ``add``, ``del`` or neither."""
    kinds = {"+": "add", "-": "del"}
    before, after = text.lines(_spec_text(old)), text.lines(_spec_text(new))
    if len(before) + len(after) > MAX_COMPARED:
        return [("", f"{len(before)} and {len(after)} lines are too many to compare.")]
    lines = difflib.unified_diff(before, after, lineterm="", n=3)
    return [(kinds.get(line[:1], ""), line) for line in list(lines)[2:]]


def _editor(
    request: HttpRequest, document: Document, workload: Workload | None, mark: str, **more: Any
) -> HttpResponse:
    context = {
        "document": document,
        "workload": workload,
        "seen": mark,
        "sample": request.POST.get("sample", ""),
        **more,
    }
    answer = render(request, "pages/workload_edit.html", context, status=document.status)
    answer["Cache-Control"] = "no-store"
    return answer


def _editable(workload: Workload) -> dict[str, Any]:
    """What of a workload its editor changes."""
    owned = WorkloadInput.read_only_ignored
    return {name: value for name, value in render_workload(workload).items() if name not in owned}


@page(Role.OPERATOR)
def _open(request: HttpRequest, workload_id: str | None) -> HttpResponse:
    copied = request.GET.get("copy")
    source = workload_id or copied
    workload = find_workload(source) if source else None
    value = _editable(workload) if workload else sections.start()
    if copied and workload:
        value = {**value, "id": "", "name": f"{workload.name}, copy"}
    document = Document(value, sections.sections_of(is_new=workload_id is None), tab=request.GET.get("tab", "form"))
    return _editor(request, document, workload if workload_id else None, version_of(value) if workload_id else "")


@action()
def _save(request: HttpRequest, workload_id: str | None) -> HttpResponse:
    workload = find_workload(workload_id) if workload_id else None
    mark = request.POST.get("seen", "")
    document = Document.posted(request.POST, sections.sections_of(is_new=workload is None))
    more: dict[str, Any] = {}
    if workload is not None and (keeps_mine := conflicts.wish(request)) is not None:
        now = _editable(workload)
        document.combine(now, keeps_mine=keeps_mine)
        return _editor(request, document, workload, version_of(_editable(workload)), is_combined=True)
    match document.do:
        case "save":
            saved = _store(request, document, workload, mark)
            if saved is not None:
                return HttpResponseRedirect(reverse("workload", args=[saved]), status=303)
        case "try":
            more["verdict"] = _verdict(document, request.POST.get("sample", ""), workload)
        case "check":
            body = document.read(WorkloadInput)
            if body is not None:
                try:
                    more["trial"] = dry_runs.run(body.to_spec(), workload.latest if workload else None)
                except Conflict as error:
                    document.add(error)
    return _editor(request, document, workload, mark, **more)


new_workload = slow(form_page(_open, _save, workload_id=None))
edit_workload = slow(form_page(_open, _save))


def _store(request: HttpRequest, document: Document, workload: Workload | None, mark: str) -> str | None:
    """The id of the saved workload; None if there are errors, which the document then shows."""
    body = document.read(WorkloadInput)
    if body is None:
        return None
    data = body.validated_data
    try:
        if workload is None:
            new_workload = services.create_workload(id=data.get("id"), name=data["name"], spec=body.to_spec())
            messages.success(request, f"Workload {new_workload.pk} created.")
            _warn(request, new_workload.pk)
            return str(new_workload.pk)
        check_same_id(data, workload.pk)
        services.update_workload(
            workload,
            name=data["name"],
            spec=body.to_spec(),
            check=lambda locked: check_version(mark, _editable(locked)),
        )
    except PreconditionFailed:
        assert workload is not None
        document.meet(_editable(find_workload(workload.pk)), *conflicts.last_change("workload", workload.pk))
        return None
    except (Invalid, Conflict) as error:
        document.add(error)
        return None
    number = find_workload(workload.pk).latest.number
    messages.success(request, f"{workload.pk} saved as version {number}. Its pools roll to it.")
    _warn(request, workload.pk)
    return str(workload.pk)


def _warn(request: HttpRequest, workload_id: str) -> None:
    for warning in render_workload(find_workload(workload_id))["warnings"]:
        messages.warning(request, warning["detail"])


def _verdict(document: Document, sample: str, workload: Workload | None) -> dict[str, Any] | None:
    """The errors of the sample by the schema, and the tenants whose configs it would refuse at their next claim."""
    body = document.read(WorkloadInput)
    if body is None:
        return None
    spec = body.to_spec()
    try:
        config = check_body(sample or "{}")
    except ValueError as error:
        return {"errors": [FieldError("", str(error), "malformed")]}
    if not isinstance(config, dict):
        return {"errors": [FieldError("", "A config must be a JSON object: { … }.", "invalid")]}
    rows = _held_configs(workload) if workload is not None else []
    errors, *others = validation.shown_errors([config, *(row.config or {} for row in rows)], spec, "workload")
    if any(error.code in validation.NOT_CHECKED for error in errors):
        rows, others = [], []
    refused = [(row.tenant_id, wrong) for row, wrong in zip(rows, others, strict=True) if wrong]
    return {"errors": errors, "tenants": len(rows), "refused": refused[:20],
            "has_schema": spec.config_schema is not None}  # fmt: skip


def _held_configs(workload: Workload) -> list[Assignment]:
    """Claims whose configs are checked: the first, as many as a page may load."""
    rows, size = [], 0
    live = Assignment.objects.live().filter(pool__workload=workload, config__isnull=False)
    for row in live[:MAX_TENANTS].iterator(chunk_size=10):
        size += len(json.dumps(row.config))
        if size > MAX_CONFIG_BYTES:
            break
        rows.append(row)
    return rows


@action(asks=consequences.refresh_workload)
def refresh(request: HttpRequest, workload_id: str) -> str:
    tags.ask_refresh(workload_id)
    return f"Checking the image of {workload_id}. Its pools roll if it has changed."


@action(asks=consequences.roll_back_workload)
def roll_back(request: HttpRequest, workload_id: str, number: int) -> HttpResponse:
    version = services.roll_back(workload_id, number)
    messages.success(
        request, f"{workload_id} is back at version {number}, as version {version.number}. Its pools roll to it."
    )
    return HttpResponseRedirect(reverse("workload", args=[workload_id]), status=303)


@action(asks=consequences.delete_workload)
def delete(request: HttpRequest, workload_id: str) -> HttpResponse:
    services.delete_workload(find_workload(workload_id))
    messages.success(request, f"{workload_id} deleted.")
    return HttpResponseRedirect(reverse("workloads"), status=303)
