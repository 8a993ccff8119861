"""The release of many tenants at once, and its page with the result of each."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse

from boilerhouse.core.errors import NotFound
from boilerhouse.core.models import Role
from boilerhouse.dashboard import bulk_release
from boilerhouse.dashboard.access import action, page


@action(
    acts="Each release is a transaction of its own, and the page says which were refused.",
    asks=bulk_release.question,
)
def release_many(request: HttpRequest) -> HttpResponse:
    outcome = bulk_release.run(bulk_release.picked(request))
    batch = bulk_release.keep(request.session, outcome)
    return HttpResponseRedirect(reverse("bulk-release", args=[batch]), status=303)


@page(Role.OPERATOR)
def batch(request: HttpRequest, batch_id: UUID) -> HttpResponse:
    results = bulk_release.results(request.session, batch_id)
    if results is None:
        raise NotFound("The results of a bulk release are kept for the session that started it, the last three only.")
    tones = [result.badge.tone for result in results]
    context: dict[str, Any] = {
        "results": results, "done": tones.count("ok") + tones.count("idle"), "failed": tones.count("error"),
        "refused": tones.count("warn"), "busy": tones.count("busy"),
    }  # fmt: skip
    return render(request, "pages/bulk_release.html", context)
