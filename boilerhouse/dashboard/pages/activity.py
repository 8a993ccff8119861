"""Activity: all events, and the search over everything that has a page."""

from __future__ import annotations

from typing import Any

from django.db.models import Q
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse

from boilerhouse.core.events import TYPES
from boilerhouse.core.models import Event
from boilerhouse.dashboard import exports
from boilerhouse.dashboard.access import page
from boilerhouse.dashboard.listing import Choice, Listing
from pools import tombstones
from pools.models import Container, Pool
from syncing.models import SyncSpec
from tenants.models import Tenant

FOUND = 20
FIXED = {
    "tenantId": ("tenant", "tenant_id"), "poolId": ("pool", "pool_id"), "containerId": ("container", "container_id"),
    "actor": ("actor", "actor"), "requestId": ("request", "request_id"),
}  # fmt: skip

COLUMNS: exports.Columns = [
    ("id", lambda event: event.pk), ("createdAt", lambda event: event.created_at), ("type", lambda event: event.type),
    ("poolId", lambda event: event.pool_id), ("tenantId", lambda event: event.tenant_id),
    ("containerId", lambda event: event.container_id), ("actor", lambda event: event.actor),
    ("requestId", lambda event: event.request_id), ("payload", lambda event: event.payload),
]  # fmt: skip


@page()
def activity(request: HttpRequest) -> HttpResponse:
    rows = Listing(
        request,
        Event.objects.all(),
        choices=[Choice("type", "type", "type", [(event_type, event_type) for event_type in sorted(TYPES)])],
        fixed=FIXED,
        search=["tenant_id", "pool_id", "container_id", "actor", "request_id"],
        sorts={"time": "id"},
        default="-time",
    )  # fmt: skip
    if exports.wanted(request):
        return exports.as_csv("activity", rows.all, COLUMNS)
    return render(request, "pages/activity.html", {"list": rows})


@page()
def search(request: HttpRequest) -> HttpResponse:
    text = request.GET.get("q", "").replace("\0", "").strip()[:200]
    results: list[tuple[str, str, str]] = []
    if text:
        for pk in Pool.objects.filter(Q(pk__icontains=text) | Q(name__icontains=text)).values_list("pk", flat=True)[
            :FOUND
        ]:
            results.append(("Pool", pk, reverse("pool", args=[pk])))
        for pk in Tenant.objects.filter(pk__icontains=text).order_by("pk").values_list("pk", flat=True)[:FOUND]:
            results.append(("Tenant", pk, reverse("tenant", args=[pk])))
        for pk in SyncSpec.objects.filter(pk__icontains=text).order_by("pk").values_list("pk", flat=True)[:FOUND]:
            results.append(("Sync spec", pk, reverse("sync-spec", args=[pk])))
        results += [("Container", str(pk), reverse("container", args=[pk])) for pk in _containers(text)]
    exact = [url for _, name, url in results if name == text]
    if exact:
        return HttpResponseRedirect(exact[0])
    context: dict[str, Any] = {"found": results, "query_text": text, "limit": FOUND}
    return render(request, "pages/search.html", context)


def _containers(text: str) -> list[Any]:
    """By the end of their ids, as shown on pages, by the whole id, or by the engine's."""
    end = text.removeprefix("c-").lower().replace("-", "")
    rows = Container.objects.filter(Q(runtime_id__startswith=text) | Q(runtime_id__startswith=end))
    ids = list(rows.values_list("pk", flat=True)[:FOUND])
    if len(end) >= 4:
        known = Container.objects.values_list("pk", flat=True)[:5000]
        ids += [pk for pk in known if (pk.hex.endswith(end) or pk.hex == end) and pk not in ids][:FOUND]
        ids += tombstones.ending_with(end, FOUND)
    return ids
