"""The page of a container that is gone: how it ended, its last lines, its last use of resources, its events."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from boilerhouse.core.models import Role
from boilerhouse.dashboard import badges, container_charts, feeds
from boilerhouse.dashboard.access import may
from boilerhouse.dashboard.badges import Badge
from boilerhouse.dashboard.pages import container_logs
from boilerhouse.dashboard.templatetags.ui import REASONS
from pools import tombstones
from pools.last_output import code_words
from pools.models import Pool, Tombstone, Workload
from tenants.models import Assignment
from tenants.states import AssignmentState

EVENTS = 20
REMOVED, FAILED, DIED = Badge("idle", "Removed"), Badge("error", "Failed to start"), Badge("error", "Died")


def show(request: HttpRequest, tombstone: Tombstone) -> HttpResponse:
    claim = Assignment.objects.filter(container_ref=tombstone.pk, tenant_id=tombstone.tenant_id).first()
    context: dict[str, Any] = {
        "container": tombstone, "claim": claim, "badge": badge(tombstone), "ending": ending(tombstone, claim),
        "exit": "still running" if tombstone.exit_code is None else _exit_words(tombstone),
        "claim_badge": badges.ASSIGNMENT[AssignmentState(claim.state)] if claim else None,
        "lived": (tombstone.at - tombstone.created_at).total_seconds(),
        "has_pool": Pool.objects.filter(pk=tombstone.pool_id).exists(),
        "has_workload": Workload.objects.filter(pk=tombstone.workload_id).exists(),
        "charts": container_charts.of(tombstones.usage_of(tombstone), _limits(tombstone), period(tombstone)),
        "events": feeds.newest(EVENTS, container_id=str(tombstone.pk)),
        "log": container_logs.card_of_removed(request, tombstone) if may(request, Role.OPERATOR) else None,
    }  # fmt: skip
    return render(request, "pages/removed_container.html", context)


def badge(tombstone: Tombstone) -> Badge:
    if tombstone.fault:
        return DIED
    return REMOVED if tombstone.was_ready else FAILED


def _exit_words(tombstone: Tombstone) -> str:
    return code_words(tombstone.exit_code, is_oom=tombstone.is_oom_killed).removeprefix("exit code ")


def _limits(tombstone: Tombstone) -> container_charts.Limits:
    return container_charts.Limits(tombstone.cpus, tombstone.memory_mb)


def period(tombstone: Tombstone) -> Any:
    """Its last hour."""
    return max(tombstone.created_at, tombstone.at - tombstones.SAMPLED), max(
        tombstone.at, tombstone.created_at + timedelta(minutes=2)
    )


def ending(tombstone: Tombstone, claim: Assignment | None) -> str:
    """Why it ended, as a sentence."""
    if claim is not None:
        return _end_of_claim(claim)
    if tombstone.tenant_id:
        return "Its tenant was released."
    by = f" by {tombstone.removed_by}" if tombstone.removed_by else ""
    return f"It was removed{by} while no tenant used it." if tombstone.was_ready else f"It was removed{by}."


def _end_of_claim(claim: Assignment) -> str:
    reason = REASONS.get(claim.reason, "")
    why = f": {reason}" if reason else f" by {claim.released_by}" if claim.released_by else ""
    match claim.state:
        case AssignmentState.ENDED:
            verb = {"discarded": "Released, and its state discarded", "released": "Released"}.get(claim.outcome)
            return f"{verb}{why}." if verb else f"The claim failed: {claim.outcome_detail or claim.outcome}."
        case AssignmentState.RELEASE_FAILED:
            return f"Its state is not saved: {claim.outcome_detail} {claim.whereabouts}"
    return f"It is being released{why}."
