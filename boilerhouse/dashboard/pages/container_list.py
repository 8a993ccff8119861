"""All containers across pools, and the removal of many."""

from __future__ import annotations

from uuid import UUID

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse

from boilerhouse.core.models import Role
from boilerhouse.dashboard import container_removals, container_rows
from boilerhouse.dashboard.access import action, page


@page()
def containers(request: HttpRequest) -> HttpResponse:
    rows = container_rows.listing(request)
    return render(request, "pages/containers.html", {"list": rows})


@action(
    acts="Each removal is a transaction of its own, and the page says which were refused.",
    asks=container_removals.question,
)
def remove_many(request: HttpRequest) -> HttpResponse:
    results = container_removals.run(container_removals.picked(request))
    key = container_removals.keep(request.session, results)
    return HttpResponseRedirect(reverse("containers-removed", args=[key]), status=303)


@page(Role.OPERATOR)
def removed(request: HttpRequest, removal_id: UUID) -> HttpResponse:
    """Result for each container of one removal."""
    rows = container_removals.rows_of(request.session, removal_id)
    tones = [row.badge.tone for row in rows]
    context = {"rows": rows, "done": tones.count("ok"), "refused": tones.count("warn")}
    return render(request, "pages/containers_removed.html", context)
