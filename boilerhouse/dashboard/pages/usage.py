"""What tenants used in a month: who used the most, and the whole month as a file."""

from __future__ import annotations

from datetime import date
from typing import Any

from django.db.models import QuerySet, Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from boilerhouse.core import tenant_usage
from boilerhouse.core.errors import NotFound
from boilerhouse.core.models import Role, TenantUsage
from boilerhouse.dashboard import exports
from boilerhouse.dashboard.access import page
from boilerhouse.dashboard.listing import Listing
from tenants import standing

SORTS = {
    "held": "held_ms", "cpu": "cpu_ns", "memory": "memory_byte_s", "sent": "sent_bytes", "received": "received_bytes",
    "tenant": "tenant_id",
}  # fmt: skip
MOST_ROWS = 1_000_000
"""An invoice needs all tenants: far above what a deployment has, far below what a process can hold."""
COLUMNS: exports.Columns = [
    ("start", lambda row: row.start),
    ("tenantId", lambda row: row.tenant_id),
    ("heldHours", lambda row: round(row.held_hours, 6)),
    ("cpuHours", lambda row: round(row.cpu_hours, 6)),
    ("memoryGbHours", lambda row: round(row.memory_gb_hours, 6)),
    ("sentBytes", lambda row: row.sent_bytes),
    ("receivedBytes", lambda row: row.received_bytes),
    ("stateBytesNow", lambda row: row.state_bytes),
]


@page(Role.ADMIN)
def usage(request: HttpRequest) -> HttpResponse:
    month = _month(request)
    if exports.is_requested(request):
        return _file(month, TenantUsage.Period.DAY if request.GET.get("by") == "day" else TenantUsage.Period.MONTH)
    rows = tenant_usage.of_month(month)
    listing = Listing(
        request, rows, search=["tenant_id"], sorts=SORTS, default="-held", filled=["held_ms", *SORTS.values()]
    )
    lines = list(listing)
    sizes = standing.saved_states([row.tenant_id for row in lines])
    context: dict[str, Any] = {
        "list": listing, "month": month, "lines": [(row, sizes.get(row.tenant_id, (None, 0))[1]) for row in lines],
        "before": tenant_usage.month_before(month), "after": _after(month), "total": total_of(rows),
        "is_current": month == tenant_usage.this_month(),
    }  # fmt: skip
    return render(request, "pages/usage.html", context)


def total_of(rows: QuerySet[TenantUsage]) -> TenantUsage:
    """A row, not stored, with the sums."""
    sums = rows.aggregate(**{name: Sum(name, default=0) for name in tenant_usage.COLUMNS})
    return TenantUsage(**sums)


def _month(request: HttpRequest) -> date:
    text = request.GET.get("month", "")
    if not text:
        return tenant_usage.this_month()
    try:
        return tenant_usage.month_of(text)
    except ValueError as error:
        raise NotFound(f"{text!r} is not a month. Write it like 2026-11.") from error


def _after(month: date) -> date | None:
    """The next month, unless it has not begun."""
    after = tenant_usage.month_after(month)
    return after if after <= tenant_usage.this_month() else None


def _file(month: date, by: TenantUsage.Period) -> HttpResponse:
    rows = standing.with_state_bytes(tenant_usage.of_month(month, by)).order_by("tenant_id", "start")
    name = f"usage-{month:%Y-%m}{'-by-day' if by == TenantUsage.Period.DAY else ''}"
    return exports.as_csv(name, rows.iterator(chunk_size=2000), COLUMNS, most=MOST_ROWS)
