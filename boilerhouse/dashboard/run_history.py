"""The history of sync runs: by day, in a range of time, in any order, and it stands still while runs end (ADR 73)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.db.models import BigIntegerField, DurationField, ExpressionWrapper, F, Max, QuerySet
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast
from django.http import HttpRequest
from django.utils.dateparse import parse_datetime

from boilerhouse.dashboard import time_ranges
from boilerhouse.dashboard.addresses import Address
from boilerhouse.dashboard.journals import COUNTED
from boilerhouse.dashboard.listing import Choice, Listing
from boilerhouse.dashboard.page_sections import is_refresh
from boilerhouse.dashboard.time_ranges import Day
from boilerhouse.dashboard.zones import zone_of
from syncing.models import SyncRun, sent

SORTED = 10_000
"""Runs that are sorted by what no index orders, the newest."""
SORTS = {
    "ended": "finished_at", "tenant": "tenant_id", "spec": "spec_id", "result": "state", "trigger": "trigger",
    "sent": "sent", "size": "size", "files": "files", "deleted": "deleted", "duration": "duration",
}  # fmt: skip
SEARCHED = ["tenant_id", "error_code", "error_detail", "asked_by"]
FILTERS = ("state", "spec", "trigger", "q", "from", "to")


class RunHistory:
    """A page of the finished ``runs``."""

    def __init__(self, request: HttpRequest, runs: QuerySet[SyncRun], choices: Sequence[Choice]) -> None:
        self.address, self.zone = Address(request), zone_of(request)
        self.span = time_ranges.range_of(self.address, self.zone, "period")
        runs = runs.filter(finished_at__isnull=False).filter(self.span.filter("finished_at"))
        seen = self._time("seen") if is_refresh(request) else None
        self.is_kept = seen is not None
        until = seen or self._time("until") or runs.aggregate(newest=Max("finished_at"))["newest"]
        self.newest: datetime | None = until
        known = runs.none() if self.is_kept else runs.filter(finished_at__lte=until) if until else runs
        by = request.GET.get("sort", "").removeprefix("-")
        self.is_by_time = by not in SORTS or by == "ended"
        self.listing = Listing(
            request,
            known if self.is_by_time else self._newest(known),
            choices=choices,
            search=SEARCHED,
            sorts=SORTS,
            default="-ended",
            filled=["finished_at"],
            until=until.isoformat() if until else "",
        )
        self.newer = self._count_newer(request, runs, choices) if until else 0

    def _time(self, name: str) -> datetime | None:
        try:
            value = parse_datetime(self.address.get(name))
        except ValueError:
            return None
        return value if value and value.tzinfo and value.year in time_ranges.YEARS else None

    def _newest(self, runs: QuerySet[SyncRun]) -> QuerySet[SyncRun]:
        """The ``SORTED`` newest, with the values that no index orders."""
        last = runs.order_by("-finished_at").values_list("finished_at", flat=True)[SORTED - 1 : SORTED].first()
        runs = runs.filter(finished_at__gte=last) if last else runs
        size, files = (Cast(KeyTextTransform(name, "progress"), BigIntegerField()) for name in ("bytes", "files"))
        took = ExpressionWrapper(F("finished_at") - F("started_at"), output_field=DurationField())
        return runs.annotate(sent=sent(), size=size, files=files, duration=took)

    def _count_newer(self, request: HttpRequest, runs: QuerySet[SyncRun], choices: Sequence[Choice]) -> int:
        """At most one more than ``COUNTED``."""
        rows = runs.filter(finished_at__gt=self.newest)
        by_time = {"ended": "finished_at"}
        matching = Listing(
            request, rows, choices=choices, search=SEARCHED, sorts=by_time, default="-ended", filled=["finished_at"]
        )
        return min(COUNTED + 1, matching.total)

    @property
    def news(self) -> str:
        return f"{COUNTED}+" if self.newer > COUNTED else str(self.newer)

    @property
    def chips(self) -> list[Any]:
        of_range = [chip for chip in time_ranges.chips(self.address, self.span) if chip.label == "time"]
        return self.listing.chips + of_range

    @property
    def days(self) -> list[Day]:
        """The runs of the page by day; without headings if they are in another order than that of time."""
        if self.is_by_time:
            return list(time_ranges.days(self.listing, "finished_at", self.zone))
        return [Day(datetime.now(self.zone).date(), "", list(self.listing))]

    @property
    def presets(self) -> list[tuple[str, str, bool]]:
        return time_ranges.presets(self.address, self.span)

    @property
    def hidden(self) -> list[tuple[str, str]]:
        return self.address.hidden(*FILTERS)

    @property
    def top(self) -> str:
        return self.address.place()

    @property
    def bare(self) -> str:
        return self.listing.bare

    @property
    def csv(self) -> str:
        return self.listing.csv

    @property
    def refresh(self) -> str:
        """What an open page asks for: the same, with the history left as it is."""
        seen = self.newest.isoformat() if self.newest else None
        place = {name: self.address.get(name) for name in ("page", "until")}
        url = self.address.place(**place, seen=seen)
        return self.address.path + url if url.startswith("?") else url
