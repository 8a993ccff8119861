"""The list of all tenants: which are shown, and what is shown of each.

The rows are tenants, sorted and divided into pages by indexes of their own table. What a page shows of each comes from
a few queries for the whole page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import OuterRef, Q, QuerySet, Subquery, Value
from django.db.models.lookups import Exact
from django.http import HttpRequest

from boilerhouse.dashboard import badges
from boilerhouse.dashboard.bounded_counts import up_to
from boilerhouse.dashboard.listing import Choice, Listing
from pools.models import Pool
from tenants import idle, standing
from tenants.models import Assignment, AssignmentQuerySet, Tenant
from tenants.states import LIVE, AssignmentState

HOLDING, UNSAVED, RELEASED = "holding", "unsaved", "released"
SEGMENTS = (("", "All"), (HOLDING, "Holding"), (UNSAVED, "Not saved"), (RELEASED, "Released"))
USING = LIVE - {AssignmentState.RELEASE_FAILED}
COLUMN_OF = {"pool": "pool_id", "state": "state"}
LARGE = "config", "metadata", "secrets", "endpoints"
"""Columns that no list shows."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of all tenants, as a tab."""

    label: str
    url: str
    count: str
    is_current: bool


@dataclass(frozen=True, slots=True)
class Line:
    """One tenant in the list."""

    tenant: Tenant
    newest: Assignment | None
    """Its last claim, whether or not it has ended."""
    badge: badges.Badge
    seen_at: datetime
    saved_at: datetime | None
    saved_bytes: int
    due_at: datetime | None
    """When it is released unless it becomes active."""

    @property
    def held(self) -> Assignment | None:
        return self.newest if self.newest and self.newest.state != AssignmentState.ENDED else None


def segment_of(request: HttpRequest) -> str:
    name = request.GET.get("show", "")
    return name if name in dict(SEGMENTS) else ""


def listing(request: HttpRequest) -> Listing:
    """The tenants that the request's filters select."""
    segment = segment_of(request)
    pools = [(pk, pk) for pk in Pool.objects.order_by("pk").values_list("pk", flat=True)]
    states = [(state.value, badges.ASSIGNMENT[state].word) for state in AssignmentState if state in LIVE]
    choices = [Choice("pool", "pool", lambda pool_id: _in_pool(segment, pool_id), pools)]
    if segment in ("", HOLDING):
        choices.append(Choice("state", "state", lambda state: _of(_live().filter(state=state)), states))
    return Listing(
        request,
        Tenant.objects.filter(_segment(segment)),
        choices=choices,
        search=["pk"],
        sorts={"tenant": "pk", "seen": "seen_at", "size": "saved_bytes", "saved": "saved_at"},
        default="-seen",
        filled=["pk"],
    )


def segments(request: HttpRequest) -> list[Segment]:
    """The tabs, each with how many tenants it has; the other filters stay."""
    counts = {
        "": up_to(Tenant.objects.all()),
        HOLDING: up_to(Assignment.objects.filter(state__in=USING)),
        UNSAVED: up_to(Assignment.objects.filter(state=AssignmentState.RELEASE_FAILED)),
        RELEASED: up_to(Tenant.objects.filter(_segment(RELEASED))),
    }
    current, tabs = segment_of(request), []
    for name, label in SEGMENTS:
        query = request.GET.copy()
        for parameter in ("show", "page", "state"):
            query.pop(parameter, None)
        if name:
            query["show"] = name
        url = f"?{query.urlencode()}" if query else request.path
        tabs.append(Segment(label, url, counts[name], name == current))
    return tabs


def lines(tenants: Sequence[Tenant]) -> list[Line]:
    """What the list shows of these tenants, in the same order."""
    newest = newest_claims([tenant.pk for tenant in tenants])
    saved = standing.saved_states([tenant.pk for tenant in tenants])
    return [_line(tenant, newest.get(tenant.pk), saved.get(tenant.pk, (None, 0))) for tenant in tenants]


def newest_claims(tenant_ids: Sequence[str]) -> dict[str, Assignment]:
    """By tenant."""
    own = Assignment.objects.filter(tenant=OuterRef("pk")).order_by("-created_at").values("pk")
    ids = Tenant.objects.filter(pk__in=list(tenant_ids)).annotate(newest=Subquery(own[:1])).values("newest")
    rows = Assignment.objects.filter(pk__in=list(ids.values_list("newest", flat=True)))
    return {row.tenant_id: row for row in rows.select_related("pool", "container").defer(*LARGE)}


def live_assignments(request: HttpRequest, listed: Listing) -> AssignmentQuerySet:
    """The live assignments of the tenants that the list's filters select, on all pages."""
    segment = segment_of(request)
    if segment == RELEASED:
        return Assignment.objects.none()
    rows = _live().filter(tenant__id__icontains=listed.q) if listed.q else _live()
    if segment:
        is_unsaved = Q(state=AssignmentState.RELEASE_FAILED)
        rows = rows.filter(is_unsaved if segment == UNSAVED else ~is_unsaved)
    return rows.filter(**{COLUMN_OF[name]: value for name, value in listed.options.items()})


def _line(tenant: Tenant, newest: Assignment | None, saved: tuple[datetime | None, int]) -> Line:
    is_held = newest is not None and newest.state != AssignmentState.ENDED
    badge = badges.ASSIGNMENT[AssignmentState(newest.state if newest else AssignmentState.ENDED)]
    if newest is not None and not is_held and not newest.was_assigned and newest.outcome:
        badge = badges.Badge("error", "Claim failed")
    active = newest.last_activity_at if newest else None
    due_at = idle.due_at(newest) if newest and is_held else None
    return Line(tenant, newest, badge, max(tenant.seen_at, active or tenant.seen_at), *saved, due_at)


def _live() -> AssignmentQuerySet:
    return Assignment.objects.exclude(state=AssignmentState.ENDED)  # as the condition of the index has it


def _of(rows: QuerySet[Assignment]) -> Q:
    """The tenants of these assignments; the database looks these up, however many others there are."""
    return Q(pk__in=rows.values("tenant_id"))


def _segment(name: str) -> Q:
    conditions = {
        HOLDING: _of(_live().exclude(state=AssignmentState.RELEASE_FAILED)),
        UNSAVED: _of(Assignment.objects.filter(state=AssignmentState.RELEASE_FAILED)),
        RELEASED: ~_of(_live()),
    }
    return conditions.get(name, Q())


def _in_pool(segment: str, pool_id: str) -> Q:
    """Whose newest claim is of the pool: the pool that the list shows.

    It is looked up tenant by tenant in the order of the list, so a page reads not much more than its own tenants.
    """
    if segment in (HOLDING, UNSAVED):
        return _of(_live().filter(pool_id=pool_id))
    newest = Assignment.objects.filter(tenant=OuterRef("pk")).order_by("-created_at").values("pool_id")
    return Q(Exact(Subquery(newest[:1]), Value(pool_id)))
