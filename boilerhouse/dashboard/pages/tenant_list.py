"""All tenants, with a release of many at once."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from boilerhouse.dashboard import tenant_listing
from boilerhouse.dashboard.access import page


@page()
def tenant_list(request: HttpRequest) -> HttpResponse:
    rows = tenant_listing.listing(request)
    tabs = tenant_listing.segments(request)
    counts = {tab.label: tab.count for tab in tabs}
    context: dict[str, Any] = {
        "list": rows, "lines": tenant_listing.lines(list(rows)), "segments": tabs, "known": counts["All"],
        "holding": counts["Holding"], "unsaved": counts["Not saved"],
        "segment_label": next((tab.label for tab in tabs[1:] if tab.is_current), "All tenants"),
        "is_known": counts["All"] != "0",
        "matching": tenant_listing.live_assignments(request, rows).count(),
        "query": [(name, request.GET[name]) for name in ("show", "pool", "state", "q") if name in request.GET],
    }  # fmt: skip
    return render(request, "pages/tenants.html", context)
