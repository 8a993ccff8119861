"""The removal of many containers at once: what it would do, and what became of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any
from uuid import UUID

from django.http import HttpRequest, QueryDict

from boilerhouse.attention.words import count
from boilerhouse.core.errors import BoilerhouseError, Conflict
from boilerhouse.dashboard import badges, bulk_actions, container_rows
from boilerhouse.dashboard.badges import Badge
from boilerhouse.dashboard.consequences import RETRIED
from boilerhouse.dashboard.questions import MANY, Question
from boilerhouse.dashboard.templatetags.ui import short
from pools.models import Container, Pool
from pools.states import ContainerState
from syncing import services as syncing
from tenants import removals

MOST = 500
"""The maximum number of containers in one action."""
REMOVABLE = (ContainerState.IDLE, ContainerState.CLAIMED)
SESSION = "removals"


class _Filters:
    """A request for the list with the filters that the form names, so that both mean the same containers."""

    def __init__(self, query: str, path: str) -> None:
        self.GET, self.path = QueryDict(query), path


def picked(request: HttpRequest) -> list[Container]:
    """The containers that the form selects, by tick or by filter, and that can be removed."""
    values = request.POST if request.method == "POST" else request.GET
    pool = Pool.objects.filter(pk=values["of"]).first() if values.get("of") else None
    if values.get("all"):
        rows = container_rows.listing(_Filters(values.get("matching", ""), request.path), pool).all  # type: ignore[arg-type]
    else:
        rows = container_rows.with_tenants(
            Container.objects.filter(pk__in=bulk_actions.ids(values.getlist("id")[:MOST]))
        )
    return list(rows.filter(state__in=REMOVABLE).order_by("pool_id", "pk")[:MOST])


def question(request: HttpRequest) -> Question:
    """What the removal would do now. Raises Conflict if none of the selected can be removed."""
    chosen = picked(request)
    if not chosen:
        raise Conflict("None of the selected containers is idle or claimed. Nothing was removed.")
    claimed = [one for one in chosen if one.tenant]  # type: ignore[attr-defined]
    pools = Counter(one.pool_id for one in claimed)
    specs = {pool_id: [spec.pk for spec in syncing.specs_to_save(pool_id, None)] for pool_id in pools}
    losses = sum(number for pool_id, number in pools.items() if not specs[pool_id])
    text = " ".join(filter(None, (_of_held(claimed, losses), _of_idle(len(chosen) - len(claimed)))))
    title, number = f"Remove {count(len(chosen), 'container')}?", len(chosen)
    values = request.POST if request.method == "POST" else request.GET
    fields = [(name, values[name]) for name in ("of", "all", "matching") if values.get(name)]
    if not values.get("all"):
        fields += [("id", str(one.pk)) for one in chosen]
    typed = str(number) if number > MANY or losses else ""
    verb = (
        f"Remove {number} and lose state" if losses else f"Save and remove {number}" if claimed else f"Remove {number}"
    )
    return Question(title, text, verb, "lose" if losses else "remove", typed, fields)


def _of_held(claimed: Sequence[Container], losses: int) -> str:
    if not claimed:
        return ""
    names = ", ".join(str(one.tenant) for one in claimed[:10])  # type: ignore[attr-defined]
    more = f" and {len(claimed) - 10} more" if len(claimed) > 10 else ""
    text = f"{names}{more} {'is' if len(claimed) == 1 else 'are'} disconnected now."
    if losses == len(claimed):
        return f"{text} Nothing is saved: no sync spec of their pools saves on release. Their state is lost."
    if losses:
        return f"{text} The state of {count(losses, 'tenant')} is lost: no sync spec of their pools saves on release."
    return f"{text} Their state is saved. {RETRIED}"


def _of_idle(idle: int) -> str:
    if not idle:
        return ""
    return f"{count(idle, 'idle container')} {'is' if idle == 1 else 'are'} removed. Pools start replacements."


@dataclass(frozen=True, slots=True)
class Result:
    container_id: str
    pool_id: str
    tenant_id: str
    refusal: str = ""


def run(chosen: Sequence[Container]) -> list[Result]:
    """Remove each; one that is refused does not stop the others."""
    results = []
    for one in chosen:
        refusal = ""
        try:
            removals.begin(one.pk, discard=False)
        except BoilerhouseError as error:
            refusal = error.detail
        results.append(Result(str(one.pk), one.pool_id, one.tenant or "", refusal))  # type: ignore[attr-defined]
    return results


def keep(session: Any, results: Sequence[Result]) -> UUID:
    """In the session of who asked, for the page of the results."""
    return bulk_actions.keep(session, SESSION, [astuple(one) for one in results])


@dataclass(frozen=True, slots=True)
class Row:
    result: Result
    badge: Badge
    detail: str


def rows_of(session: Any, key: UUID) -> list[Row]:
    """What has become of each by now; nothing if the session does not know the action any more."""
    results = [Result(*one) for one in bulk_actions.stored_results(session, SESSION, key) or []]
    states = dict(Container.objects.filter(pk__in=[one.container_id for one in results]).values_list("pk", "state"))
    return [_row(one, states.get(UUID(one.container_id))) for one in results]


def _row(result: Result, state: str | None) -> Row:
    if result.refusal:
        return Row(result, Badge("warn", "Not removed"), result.refusal)
    if state is None:
        return Row(result, Badge("ok", "Removed"), "")
    detail = f"{result.tenant_id} is being saved and released." if result.tenant_id else ""
    return Row(result, badges.CONTAINER[ContainerState(state)], detail or short(result.container_id))
