"""The release of many tenants at once: the question with what is lost, and what has become of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from django.contrib.sessions.backends.base import SessionBase
from django.http import HttpRequest

from boilerhouse.attention.words import count
from boilerhouse.core.errors import BoilerhouseError, Conflict
from boilerhouse.dashboard import badges, bulk_actions, tenant_listing
from boilerhouse.dashboard.consequences import IDS, RETRIED
from boilerhouse.dashboard.questions import MANY, Question
from syncing import services as syncing
from tenants import releases
from tenants.models import Assignment
from tenants.states import AssignmentState

NAMED = 10
SESSION = "releases"


@dataclass(frozen=True, slots=True)
class Result:
    """What has become of one tenant of a bulk release."""

    tenant_id: str
    badge: badges.Badge
    detail: str


def picked(request: HttpRequest) -> list[Assignment]:
    """The live assignments that are selected, or all of the list that match its filters; ``IDS`` at most."""
    values = request.POST if request.method == "POST" else request.GET
    if request.method != "POST" and "all" in values:
        rows = tenant_listing.live_assignments(request, tenant_listing.listing(request))
    else:
        rows = Assignment.objects.live().filter(pk__in=bulk_actions.ids(values.getlist("id")[:IDS]))
    return list(rows.select_related("pool").defer(*tenant_listing.LARGE).order_by("tenant_id")[:IDS])


def question(request: HttpRequest) -> Question:
    """Names who would lose state, and wants the number typed if anybody would or if there are many."""
    rows = picked(request)
    if not rows:
        raise Conflict("None of the selected tenants has a container. Nothing was released.")
    number, losing = len(rows), _losing(rows)
    names = ", ".join(row.tenant_id for row in rows[:NAMED]) + (f" and {number - NAMED} more" if number > NAMED else "")
    texts = [f"{names}.", *_consequences(rows, losing)]
    if number == IDS:
        texts.append(f"At most {IDS} are released at once; repeat this for others.")
    verb = f"Release {number} and lose state" if losing else f"Save and release {number}"
    typed = str(number) if losing or number > MANY else ""
    ids = [("id", str(row.pk)) for row in rows]
    return Question(f"Release {count(number, 'tenant')}?", " ".join(texts), verb, _kind(rows), typed, ids)


def run(rows: Sequence[Assignment]) -> list[tuple[str, str, str]]:
    """Release each, with a save where its pool saves. Returns tenant, assignment, and why it was refused."""
    return [(row.tenant_id, str(row.pk), _release(row)) for row in rows]


def keep(session: SessionBase, outcome: Sequence[tuple[str, str, str]]) -> UUID:
    """Store what a bulk release started, for its page. Returns the id."""
    return bulk_actions.keep(session, SESSION, outcome)


def results(session: SessionBase, batch: UUID) -> list[Result] | None:
    """The state of each tenant now; None if this session has no such release, or has newer ones."""
    outcome = bulk_actions.stored_results(session, SESSION, batch)
    if outcome is None:
        return None
    rows = Assignment.objects.defer(*tenant_listing.LARGE).in_bulk([UUID(pk) for _, pk, _ in outcome])
    return [_result(tenant_id, rows.get(UUID(pk)), refusal) for tenant_id, pk, refusal in outcome]


def _losing(rows: Sequence[Assignment]) -> list[Assignment]:
    """Those that are in use in pools that save nothing on release."""
    saving = {pool_id: bool(syncing.specs_to_save(pool_id, None)) for pool_id in {row.pool_id for row in rows}}
    return [row for row in rows if row.state == AssignmentState.ASSIGNED and not saving[row.pool_id]]


def _consequences(rows: Sequence[Assignment], losing: Sequence[Assignment]) -> Iterable[str]:
    states = Counter(row.state for row in rows)
    if saved := states[AssignmentState.ASSIGNED] - len(losing):
        yield f"{count(saved, 'tenant')} in use: disconnected now, saved and released. {RETRIED}"
    if losing:
        pools = ", ".join(sorted({row.pool_id for row in losing}))
        yield f"{count(len(losing), 'tenant')} of {pools}: disconnected now. Nothing is saved, the state is lost."
    if states[AssignmentState.PENDING]:
        yield f"{count(states[AssignmentState.PENDING], 'claim')} in progress: cancelled."
    if states[AssignmentState.RELEASE_FAILED]:
        yield f"{count(states[AssignmentState.RELEASE_FAILED], 'failed save')}: tried again now."
    if states[AssignmentState.RELEASING]:
        yield f"{count(states[AssignmentState.RELEASING], 'tenant')}: already being released."


def _kind(rows: Sequence[Assignment]) -> str:
    """Another answer than to this question does nothing: the states of the tenants are part of it."""
    states = Counter(row.state for row in rows)
    losses = len(_losing(rows))
    return f"{'lose' if losses else 'save'}-{losses}-" + "-".join(str(states[state]) for state in AssignmentState)


def _release(row: Assignment) -> str:
    """Why it was refused; empty if it was not."""
    now = Assignment.objects.live().filter(tenant_id=row.tenant_id).values_list("pk", flat=True).first()
    if now is None:
        return "Already released."
    if now != row.pk:
        return "The tenant has claimed again since the question. Not released."
    try:
        releases.begin(row.tenant_id)
    except BoilerhouseError as error:
        return error.detail
    return ""


def _result(tenant_id: str, row: Assignment | None, refusal: str) -> Result:
    if refusal:
        return Result(tenant_id, badges.Badge("warn", "Not done"), refusal)
    if row is None:
        return Result(tenant_id, badges.Badge("idle", "Released"), "")
    state = AssignmentState(row.state)
    if state == AssignmentState.RELEASE_FAILED:
        return Result(tenant_id, badges.ASSIGNMENT[state], f"{row.outcome_detail} {row.whereabouts}")
    if state == AssignmentState.ENDED:
        is_discarded = row.outcome == "discarded"
        return Result(tenant_id, badges.Badge("ok", "Discarded" if is_discarded else "Released"), "")
    return Result(tenant_id, badges.ASSIGNMENT[state], "")
