"""Activity: all events, and the search over everything that has a page."""

from __future__ import annotations

from typing import Any

from django.db.models import Q
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone

from boilerhouse.dashboard import event_words, exports, feeds, time_ranges
from boilerhouse.dashboard.access import page
from boilerhouse.dashboard.event_filters import EventFilters
from boilerhouse.dashboard.feeds import Fold
from boilerhouse.dashboard.journals import Journal
from boilerhouse.dashboard.templatetags.ui import plain_sentence
from boilerhouse.dashboard.time_ranges import Day, presets
from pools import tombstones
from pools.models import Container, Pool
from syncing.models import SyncSpec
from tenants.models import Tenant

FOUND = 20
UNCHANGED_READ = 5_000
"""Saves without changes that a page counts, the newest."""
COLUMNS: exports.Columns = [
    ("id", lambda event: event.pk), ("createdAt", lambda event: event.created_at), ("type", lambda event: event.type),
    ("text", plain_sentence),
    ("poolId", lambda event: event.pool_id), ("tenantId", lambda event: event.tenant_id),
    ("containerId", lambda event: event.container_id), ("actor", lambda event: event.actor),
    ("requestId", lambda event: event.request_id), ("payload", lambda event: event.payload),
]  # fmt: skip


@page()
def activity(request: HttpRequest) -> HttpResponse:
    filters = EventFilters(request)
    address, span = filters.address, filters.span
    journal = Journal(
        request, address, span, filters.rows(),
        among=filters.among(), when="created_at", chips=filters.chips(), is_indexed=filters.is_indexed,
    )  # fmt: skip
    if exports.wanted(request):
        return exports.as_csv("activity", journal.all(), COLUMNS)
    context: dict[str, Any] = {
        "list": journal, "days": _days(filters, journal), "filters": filters, "presets": presets(address, span),
        "hidden": address.hidden("q", "from", "to", "routine"), "types": event_words.choices(),
        "zone": str(span.zone),
    }  # fmt: skip
    return render(request, "pages/activity.html", context)


def _days(filters: EventFilters, journal: Journal) -> list[tuple[Day, Fold | None]]:
    """The days of the page, each with its saves that had nothing to send."""
    unchanged = None if journal.is_kept else filters.unchanged()
    if unchanged is None:
        return [(day, None) for day in journal.days]
    url, zone = filters.address.url, filters.span.zone
    folds = feeds.by_day(journal.same_page(unchanged), zone, UNCHANGED_READ)
    for day, fold in folds.items():
        only = time_ranges.day_of(day)
        fold.url = url(part=None, routine="unchanged", range=None, **{"from": only[0], "to": only[1]})
    shown = {day.date: day for day in journal.days}
    today = timezone.now().astimezone(zone).date()
    empty = {date: Day(date, time_ranges.heading(date, today), []) for date in folds if date not in shown}
    whole = sorted({**empty, **shown}.items(), reverse=True)
    return [(day, folds.get(date)) for date, day in whole]


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
