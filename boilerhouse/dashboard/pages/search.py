"""The search page, and the same results for the palette as they are typed."""

from __future__ import annotations

import hashlib

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render

from boilerhouse.dashboard.access import page
from boilerhouse.dashboard.search import Search

ON_PAGE, IN_PALETTE = 20, 6
PALETTE = "palette-list"


@page()
def search(request: HttpRequest) -> HttpResponse:
    if request.htmx.target == PALETTE:  # type: ignore[attr-defined]
        return _palette(request)
    query = Search(request, request.GET.get("q", ""), ON_PAGE)
    groups = query.groups()
    if only := query.only_exact():
        return HttpResponseRedirect(only.url)
    context = {"groups": groups, "query_text": query.text, "limit": ON_PAGE,
               "count": sum(len(group.results) for group in groups)}  # fmt: skip
    return render(request, "pages/search.html", context)


def _palette(request: HttpRequest) -> HttpResponse:
    """The options; 304 if they are what the browser has."""
    query = Search(request, request.GET.get("q", ""), IN_PALETTE)
    answer = render(request, "components/palette_results.html", {"groups": query.groups()})
    answer["ETag"] = f'"{hashlib.sha256(answer.content).hexdigest()[:32]}"'
    answer["Cache-Control"] = "private, no-cache"
    if request.headers.get("If-None-Match", "").removeprefix("W/") == answer["ETag"]:
        unchanged = HttpResponse(status=304)
        for name in ("ETag", "Cache-Control"):
            unchanged[name] = answer[name]
        return unchanged
    return answer
