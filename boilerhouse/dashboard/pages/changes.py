"""Settings, Changes: who changed what, from the audit log."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet, TextField
from django.db.models.functions import Cast
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from boilerhouse.core.models import AuditEntry, Role
from boilerhouse.dashboard import change_words, exports, time_ranges
from boilerhouse.dashboard.access import page
from boilerhouse.dashboard.addresses import Address
from boilerhouse.dashboard.event_filters import MAX_TERMS, as_stored
from boilerhouse.dashboard.journals import Journal
from boilerhouse.dashboard.listing import Chip
from boilerhouse.dashboard.time_ranges import TimeRange
from boilerhouse.dashboard.zones import zone_of

OBJECTS = {
    "kind": ("kind", "kind"), "objectId": ("object", "object_id"), "actor": ("by", "actor"),
    "requestId": ("request", "request_id"),
}  # fmt: skip
WHO = {"people": ("People", "user "), "keys": ("API keys", "key "), "commands": ("Commands", "command ")}
SLACK = timedelta(minutes=1)
COLUMNS: exports.Columns = [
    ("at", lambda entry: entry.at), ("actor", lambda entry: entry.actor), ("action", lambda entry: entry.action),
    ("text", lambda entry: change_words.words(entry.action)), ("kind", lambda entry: entry.kind),
    ("objectId", lambda entry: entry.object_id), ("requestId", lambda entry: entry.request_id),
    ("before", lambda entry: entry.before), ("after", lambda entry: entry.after),
]  # fmt: skip


@page(Role.ADMIN)
def changes(request: HttpRequest) -> HttpResponse:
    address = Address(request)
    span = time_ranges.range_of(address, zone_of(request))
    part, who = address.get("part"), address.get("who")
    among = within(AuditEntry.objects.all(), span)
    rows = _filtered(among, address)
    journal = Journal(
        request, address, span, rows, among=among, when="at", chips=_chips(address, span), is_indexed=rows is among
    )
    if exports.is_requested(request):
        return exports.as_csv("changes", journal.all(), COLUMNS)
    by_id = {change.pk: change for change in change_words.changes(journal.rows)}
    labels = {"": "All", **{name: text for name, (text, _) in change_words.PARTS.items()}}
    context: dict[str, Any] = {
        "section": "changes", "list": journal, "zone": str(span.zone),
        "days": [(day.heading, [by_id[entry.pk] for entry in day.rows]) for day in journal.days],
        "presets": time_ranges.presets(address, span), "hidden": address.hidden("q", "from", "to", "who"),
        "parts": [(text, address.url(part=name or None), name == part) for name, text in labels.items()],
        "whos": [(name, text, name == who) for name, (text, _) in WHO.items()],
    }  # fmt: skip
    return render(request, "pages/changes.html", context)


def within(rows: QuerySet[AuditEntry], span: TimeRange) -> QuerySet[AuditEntry]:
    """Entries of the range. Their ids begin with the time, so bounds on ids come first."""
    if span.start is not None:
        rows = rows.filter(pk__gte=_id_at((span.start - SLACK).timestamp()))
    if span.end is not None:
        rows = rows.filter(pk__lt=_id_at((span.end + SLACK).timestamp()))
    return rows if span.is_open else rows.filter(span.filter("at"))


def _id_at(seconds: float) -> UUID:
    """The least id of version 7 that a row of this time can have."""
    return UUID(int=max(0, int(seconds * 1000)) << 80)


def _filtered(rows: QuerySet[AuditEntry], address: Address) -> QuerySet[AuditEntry]:
    """The same queryset if there is no filter."""
    for name, (_, column) in OBJECTS.items():
        if value := address.get(name):
            rows = rows.filter(**{column: value})
    if part := change_words.PARTS.get(address.get("part")):
        condition = Q()
        for beginning in part[1]:
            condition |= Q(action__startswith=beginning)
        rows = rows.filter(condition)
    if who := WHO.get(address.get("who")):
        rows = rows.filter(actor__startswith=who[1])
    for term in address.q.split()[:MAX_TERMS]:
        rows = rows.alias(old=Cast("before", TextField()), new=Cast("after", TextField())).filter(_contains(term))
    return rows


def _contains(term: str) -> Q:
    stored = as_stored(term)
    condition = Q(old__icontains=stored) | Q(new__icontains=stored) | Q(action__in=change_words.actions_called(term))
    for field in ("object_id", "actor", "action", "request_id"):
        condition |= Q(**{f"{field}__icontains": term.removeprefix("c-") if field == "object_id" else term})
    return condition


def _chips(address: Address, span: TimeRange) -> list[Chip]:
    chips = [Chip(label, value, address.url(**{name: None}))
             for name, (label, _) in OBJECTS.items() if (value := address.get(name))]  # fmt: skip
    if who := WHO.get(address.get("who")):
        chips.append(Chip("by", who[0], address.url(who=None)))
    return chips + time_ranges.chips(address, span)
