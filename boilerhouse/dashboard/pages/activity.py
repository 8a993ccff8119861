"""Activity: all events."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

from boilerhouse.dashboard import event_words, exports, feeds, time_ranges
from boilerhouse.dashboard.access import page
from boilerhouse.dashboard.event_filters import EventFilters
from boilerhouse.dashboard.feeds import Fold
from boilerhouse.dashboard.journals import Journal
from boilerhouse.dashboard.templatetags.ui import plain_sentence
from boilerhouse.dashboard.time_ranges import Day, presets

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
    if exports.is_requested(request):
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
    days = {day.date: day for day in journal.days}
    today = timezone.now().astimezone(zone).date()
    empty = {date: Day(date, time_ranges.heading(date, today), []) for date in folds if date not in days}
    whole = sorted({**empty, **days}.items(), reverse=True)
    return [(day, folds.get(date)) for date, day in whole]
