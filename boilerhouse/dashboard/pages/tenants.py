"""One tenant, with its claim or release, its saves and its actions."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone

from boilerhouse.core import deployment_settings
from boilerhouse.core.errors import BoilerhouseError, Invalid, NotFound
from boilerhouse.core.models import Role
from boilerhouse.dashboard import badges, consequences, feeds, needs, transfers
from boilerhouse.dashboard.access import action, form_page, page, slow
from boilerhouse.dashboard.sections import tenant_history
from boilerhouse.process import budgets
from boilerhouse.web import node_calls, response_bytes
from syncing.models import SyncRun
from syncing.states import Direction, SyncRunState
from tenants import backups, errors, idle, previews, releases, state_erasure, status, syncs, validation
from tenants.models import Assignment, Tenant
from tenants.states import AssignmentState, ReleaseStep

RUNS = 10
BACKUPS = 10
LOST = (errors.StateMissing.code, errors.StateMoved.code)
STEPS = {
    "": "Waiting for a worker",
    ReleaseStep.STOPPING: "Stopping the container",
    ReleaseStep.SAVING: "Saving the state",
    ReleaseStep.SAVED: "State saved",
    ReleaseStep.DESTROYING: "Removing the container",
    ReleaseStep.WIPING: "Deleting its directories",
}

SAVED_STEPS = (ReleaseStep.SAVED, ReleaseStep.DESTROYING, ReleaseStep.WIPING)
CLAIM_STEPS = ("Container assigned", "State restored, config and secrets written", "Ready for the tenant")


@page()
def tenant(request: HttpRequest, tenant_id: str) -> HttpResponse:
    validation.check_tenant_id(tenant_id)
    row = Tenant.objects.filter(pk=tenant_id).first()
    runs = list(SyncRun.objects.filter(tenant_id=tenant_id).select_related("spec").order_by("-created_at")[:RUNS])
    saves = tenant_history.saves_of(tenant_id)
    saved = saves.at
    if row is None and not runs and saved is None:
        raise NotFound(f"There is no tenant {tenant_id}.")
    claim = Assignment.objects.live().select_related("pool", "version").filter(tenant_id=tenant_id).first()
    is_assigned = claim is not None and claim.state == AssignmentState.ASSIGNED and claim.container_id is not None
    claims = tenant_history.claims_of(tenant_id)
    last = claims[0] if claims else None
    claim_error = status.claim_error(last)
    periodic_saves = list(syncs.periodic_saves(tenant_id)) if claim else []
    feed = feeds.newest(tenant_history.EVENTS, tenant_id=tenant_id)
    now, (month, days) = timezone.now(), tenant_history.usage_of(tenant_id)
    running = [run for run in runs if transfers.is_lasting(run, now)]
    context: dict[str, Any] = {
        "tenant_id": tenant_id, "tenant": row, "held": claim, "last": last, "saved": saved, "now": now,
        "badge": _badge(claim, claim_error), "claim_error": claim_error,
        "death": tenant_history.death_of(last),
        "steps": _steps(claim), "usual_ms": _usual_ms(claim),
        "step": STEPS.get(claim.step, claim.step) if claim else "",
        "endpoints": claim.endpoints if claim and is_assigned else [],
        "due": idle.due_at(claim) if claim else None,
        "runs": [(run, badges.RUN[SyncRunState(run.state)], badges.run_verb(run)) for run in runs],
        "running": [(run, badges.RUN[SyncRunState(run.state)], badges.run_verb(run)) for run in running],
        "unsaved_since": min((beat.unsaved_since for beat in periodic_saves), default=None),
        "kept_to": max(filter(None, (saved, claim.assigned_at or claim.created_at))) if claim else None,
        "is_overdue": any(beat.is_overdue(now) for beat in periodic_saves),
        "interval_s": min(((beat.spec.interval_ms or 0) // 1000 for beat in periodic_saves), default=0),
        "is_saved": claim is not None and not claim.discard and claim.step in SAVED_STEPS,
        "has_specs": bool(claim and claim.pool.sync_specs.exists()),
        "saves": saves, "claims": tenant_history.ended(claims), "month": month, "days": days,
        "feed": feed, "chapters": tenant_history.chapters(feed, claims),
        "ended_why": tenant_history.ended_why(last) if last else "",
        "backups": list(backups.of_tenant(tenant_id).order_by("-created_at")[:BACKUPS]),
        "kept_for_s": deployment_settings.current().retention_s["backups"],
        "uses": [*budgets.of_tenant(tenant_id, claim.container_id), response_bytes.use_of(tenant_id)] if claim else [],
        "has_files": settings.BOILERHOUSE_FILE_BROWSER,
        "needs": needs.of_tenant(request, tenant_id) if claim else [],
        "verdict": _verdict(claim), "has_lost_state": last is not None and last.outcome in LOST,
    }  # fmt: skip
    return render(request, "pages/tenant.html", context)


@action(asks=consequences.release_tenant)
def release(request: HttpRequest, tenant_id: str) -> str:
    """Save and release; the same action aborts a pending claim and retries a failed save."""
    releases.begin(tenant_id)
    return f"Saving and releasing {tenant_id}."


@action(asks=consequences.discard_tenant)
def discard(request: HttpRequest, tenant_id: str) -> str:
    releases.begin(tenant_id, discard=True)
    return f"Discarding the unsaved state of {tenant_id}. It stays on the node for a limited time."


def _badge(claim: Assignment | None, claim_error: dict[str, Any] | None) -> badges.Badge:
    if claim is not None:
        return badges.ASSIGNMENT[AssignmentState(claim.state)]
    return badges.Badge("error", "Claim failed") if claim_error else badges.Badge("idle", "Released")


def _steps(claim: Assignment | None) -> list[tuple[str, str]]:
    """Each step of a claim or a release in progress, as ``done``, ``now`` or ``todo``."""
    if claim is None or claim.state not in (AssignmentState.PENDING, AssignmentState.RELEASING):
        return []
    if claim.state == AssignmentState.PENDING:
        words, at = list(CLAIM_STEPS), 1 if claim.container_ref else 0
    else:
        order = [step for step in STEPS if step]
        words, at = [STEPS[step] for step in order], order.index(claim.step) if claim.step in order else 0
    return [(word, "done" if n < at else "now" if n == at else "todo") for n, word in enumerate(words)]


def _usual_ms(claim: Assignment | None) -> int | None:
    """The median duration of the pool's last claims; None if unknown or if none is in progress."""
    if claim is None or claim.state != AssignmentState.PENDING:
        return None
    rows = Assignment.objects.filter(pool_id=claim.pool_id, latency_ms__isnull=False).order_by("-created_at")
    times = sorted(ms or 0 for ms in rows.values_list("latency_ms", flat=True)[:50])
    return times[len(times) // 2] if times else None


def _verdict(claim: Assignment | None) -> dict[str, Any] | None:
    """The errors of the tenant's config by the workload's schema: that of its container, and the newest."""
    if claim is None or claim.config is None or claim.version is None:
        return None
    newest = claim.pool.workload.latest
    [errors] = validation.shown_errors([claim.config], claim.version.spec, claim.tenant_id)
    verdict = {"errors": errors, "version": claim.version.number,
             "has_schema": claim.version.spec.config_schema is not None}  # fmt: skip
    if newest.number != claim.version.number:
        [later] = validation.shown_errors([claim.config], newest.spec, claim.tenant_id)
        verdict |= {"newest": newest.number, "later": later}
    return verdict


@page(Role.OPERATOR)
def _preview(request: HttpRequest, tenant_id: str) -> HttpResponse:
    """Preview of a save and a restore."""
    if not Tenant.objects.filter(pk=tenant_id).exists():
        raise NotFound(f"There is no tenant {tenant_id}.")
    context: dict[str, Any] = {"tenant_id": tenant_id}
    try:
        context["saves"] = previews.of_sync(tenant_id, Direction.UPLOAD)
        context["restores"] = previews.of_sync(tenant_id, Direction.DOWNLOAD)
    except Invalid as error:
        raise NotFound(error.detail) from error
    except BoilerhouseError as error:
        if node_calls.can_pass(error):
            raise
        context["refusal"] = error.detail
    return render(request, "pages/tenant_sync.html", context)


@action()
def _sync(request: HttpRequest, tenant_id: str) -> HttpResponse:
    direction = "inward" if request.POST.get("direction") == "inward" else "outward"
    runs = syncs.begin(tenant_id, direction)
    noun = "save" if direction == "outward" else "restore"
    messages.success(request, f"{len(runs)} {noun}{'s' if len(runs) != 1 else ''} of {tenant_id} queued.")
    return HttpResponseRedirect(reverse("tenant", args=[tenant_id]), status=303)


sync = slow(form_page(_preview, _sync))


@action(asks=consequences.put_back_backup)
def put_back(request: HttpRequest, tenant_id: str, backup_id: UUID) -> str:
    backups.restore(tenant_id, backup_id)
    return f"Restoring the backup. {tenant_id} cannot claim until this has ended."


@action(
    acts="Deletes files of this node, which cannot be rolled back; repeating it continues.",
    asks=consequences.erase_tenant,
)
def erase(request: HttpRequest, tenant_id: str) -> str:
    erasure = state_erasure.begin(tenant_id)
    if erasure.generation is None:
        return f"{tenant_id} has no saved state."
    return f"Erasing the saved state of {tenant_id}, including backups."


@action(asks=consequences.forget_tenant)
def forget(request: HttpRequest, tenant_id: str) -> str:
    count = state_erasure.forget_state(tenant_id)
    return f"{count} saved location{'s' if count != 1 else ''} of {tenant_id} forgotten. The next claim starts empty."
