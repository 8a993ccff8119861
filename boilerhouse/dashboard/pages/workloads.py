"""Workloads: the list, one with its spec, versions and pools, and its editor."""

from __future__ import annotations

import difflib
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse

from boilerhouse.core.errors import Conflict, FieldError, Invalid, PreconditionFailed
from boilerhouse.core.models import Role
from boilerhouse.dashboard.access import action, page, require_typed, slow
from boilerhouse.dashboard.forms import JsonForm, as_json, check_seen, seen
from boilerhouse.dashboard.listing import Listing
from pools import services
from pools.api.serializers import WorkloadInput, render_spec, render_workload
from pools.api.views import find_workload
from pools.models import Container, Workload
from pools.spec import WorkloadSpec

SERVER_OWNED = ("version", "createdAt", "updatedAt")
START = {
    "name": "My workload",
    "image": "registry.example/image:tag",
    "volumes": {"state": {"containerPath": "/state", "mode": "rw"}},
    "ports": [{"name": "http", "containerPort": 8080, "protocol": "tcp"}],
    "healthCheck": {"command": ["true"], "intervalMs": 30000, "timeoutMs": 5000, "retries": 3},
    "resources": {"cpus": 1, "memoryMb": 512},
}


@page()
def workload_list(request: HttpRequest) -> HttpResponse:
    rows = Listing(
        request,
        Workload.objects.with_latest().prefetch_related("pools"),
        search=["id", "name"],
        sorts={"id": "id", "name": "name", "changed": "updated_at"},
        default="id",
    )
    lines = [(one, render_workload(one), [pool.pk for pool in one.pools.all()]) for one in rows]
    return render(request, "pages/workloads.html", {"list": rows, "lines": lines})


@page()
def workload(request: HttpRequest, workload_id: str) -> HttpResponse:
    found = find_workload(workload_id)
    shown = render_workload(found)
    versions = list(found.versions.order_by("-number")[:20])
    asked = request.GET.get("compare", "")
    old = next((one for one in versions if str(one.number) == asked), None)
    running: dict[int, int] = {}
    for number in Container.objects.filter(version__workload=found).values_list("version__number", flat=True):
        running[number] = running.get(number, 0) + 1
    context: dict[str, Any] = {
        "workload": found, "shown": shown, "spec": _spec_text(versions[0].spec) if versions else "",
        "versions": [(one, running.get(one.number, 0)) for one in versions], "old": old,
        "diff": _diff(old.spec, versions[0].spec) if old else [], "pools": list(found.pools.order_by("pk")),
    }  # fmt: skip
    return render(request, "pages/workload.html", context)


def _spec_text(spec: WorkloadSpec) -> str:
    return as_json(render_spec(spec))


def _diff(old: WorkloadSpec, new: WorkloadSpec) -> list[tuple[str, str]]:
    """Lines with what they are: ``add``, ``del`` or neither."""
    kinds = {"+": "add", "-": "del"}
    lines = difflib.unified_diff(_spec_text(old).splitlines(), _spec_text(new).splitlines(), lineterm="", n=3)
    return [(kinds.get(line[:1], ""), line) for line in list(lines)[2:]]


def _editor(request: HttpRequest, form: JsonForm, found: Workload | None, mark: str, status: int = 200) -> HttpResponse:
    context = {"form": form, "workload": found, "seen": mark}
    return render(request, "pages/workload_edit.html", context, status=status)


@slow
def new_workload(request: HttpRequest) -> HttpResponse:
    return _create(request) if request.method == "POST" else _new(request)


@page(Role.OPERATOR)
def _new(request: HttpRequest) -> HttpResponse:
    return _editor(request, JsonForm(as_json(START)), None, "")


@action()
def _create(request: HttpRequest) -> HttpResponse:
    form = JsonForm(request.POST.get("json", ""))
    body = form.read(WorkloadInput)
    if body is not None:
        data = body.validated_data
        try:
            made = services.create_workload(id=data.get("id"), name=data["name"], spec=body.to_spec())
        except (Invalid, Conflict) as error:
            form.add(error)
        else:
            messages.success(request, f"Workload {made.pk} is there; a pool can keep it warm.")
            return HttpResponseRedirect(reverse("workload", args=[made.pk]), status=303)
    return _editor(request, form, None, "", 422)


@slow
def edit_workload(request: HttpRequest, workload_id: str) -> HttpResponse:
    return _save(request, workload_id) if request.method == "POST" else _edit(request, workload_id)


@page(Role.OPERATOR)
def _edit(request: HttpRequest, workload_id: str) -> HttpResponse:
    found = find_workload(workload_id)
    shown = render_workload(found)
    form = JsonForm(as_json({name: value for name, value in shown.items() if name not in SERVER_OWNED}))
    return _editor(request, form, found, seen(shown))


@action()
def _save(request: HttpRequest, workload_id: str) -> HttpResponse:
    found = find_workload(workload_id)
    mark = request.POST.get("seen", "")
    form = JsonForm(request.POST.get("json", ""))
    body = form.read(WorkloadInput)
    if body is not None:
        try:
            if body.validated_data.get("id", workload_id) != workload_id:
                raise Invalid(FieldError("/id", f"The id stays {workload_id}.", "fixed"))
            services.update_workload(
                found, name=body.validated_data["name"], spec=body.to_spec(),
                check=lambda locked: check_seen(mark, render_workload(locked)),
            )  # fmt: skip
        except (Invalid, Conflict, PreconditionFailed) as error:
            form.add(error)
        else:
            number = find_workload(workload_id).latest.number
            messages.success(request, f"{workload_id} is saved as version {number}; its pools roll to it.")
            return HttpResponseRedirect(reverse("workload", args=[workload_id]), status=303)
    return _editor(request, form, found, mark, 422)


@action()
def delete(request: HttpRequest, workload_id: str) -> HttpResponse:
    require_typed(request, workload_id, "deleted")
    services.delete_workload(find_workload(workload_id))
    messages.success(request, f"{workload_id} is deleted.")
    return HttpResponseRedirect(reverse("workloads"), status=303)
