"""Tenants: who holds what, and one tenant with its claim or release, its saves and what may be done."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db.models import Max
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

from boilerhouse.core.errors import NotFound
from boilerhouse.core.models import Event
from boilerhouse.dashboard import tones
from boilerhouse.dashboard.access import action, page, require_typed
from boilerhouse.dashboard.listing import Choice, Listing
from pools.models import Pool
from syncing.models import SavedState, SyncRun
from syncing.states import SyncRunState
from tenants import idle, releases, syncs, validation
from tenants.models import Assignment, Tenant
from tenants.states import AssignmentState, ReleaseStep

RUNS = 25
EVENTS = 20
STEPS = {
    "": "Waiting for a worker",
    ReleaseStep.STOPPING: "Stopping the container",
    ReleaseStep.SAVING: "Saving the state",
    ReleaseStep.SAVED: "The state is saved",
    ReleaseStep.DESTROYING: "Removing the container",
    ReleaseStep.WIPING: "Wiping its directories",
}


def last_saves(tenants: list[str]) -> dict[str, datetime]:
    """When each of them was last saved."""
    rows = SavedState.objects.current().filter(tenant_id__in=tenants).values("tenant_id")
    return {row["tenant_id"]: row["at"] for row in rows.annotate(at=Max("saved_at")).order_by()}


@page()
def tenant_list(request: HttpRequest) -> HttpResponse:
    pools = [(pk, pk) for pk in Pool.objects.order_by("pk").values_list("pk", flat=True)]
    states = [(state.value, tones.ASSIGNMENT[state].word) for state in AssignmentState if state != "ended"]
    rows = Listing(
        request,
        Assignment.objects.live(),
        choices=[Choice("state", "state", "state", states), Choice("pool", "pool", "pool_id", pools)],
        search=["tenant__id"],
        sorts={"tenant": "tenant_id", "state": "state", "pool": "pool_id", "since": "created_at"},
        default="-since",
    )
    shown = list(rows)
    saves = last_saves([one.tenant_id for one in shown])
    lines = [(one, tones.ASSIGNMENT[AssignmentState(one.state)], saves.get(one.tenant_id)) for one in shown]
    context: dict[str, Any] = {"list": rows, "lines": lines, "known": Tenant.objects.count()}
    return render(request, "pages/tenants.html", context)


@page()
def tenant(request: HttpRequest, tenant_id: str) -> HttpResponse:
    validation.check_tenant_id(tenant_id)
    known = Tenant.objects.filter(pk=tenant_id).first()
    runs = list(SyncRun.objects.filter(tenant_id=tenant_id).select_related("spec").order_by("-created_at")[:RUNS])
    saved = last_saves([tenant_id]).get(tenant_id)
    if known is None and not runs and saved is None:
        raise NotFound(f"Nothing is known of {tenant_id}.")
    held = Assignment.objects.live().select_related("pool", "version").filter(tenant_id=tenant_id).first()
    last = Assignment.objects.filter(tenant_id=tenant_id).order_by("-created_at").first()
    running = [run for run in runs if run.state in (SyncRunState.RUNNING, SyncRunState.QUEUED)]
    beats = list(syncs.beats(tenant_id)) if held else []
    now = timezone.now()
    context: dict[str, Any] = {
        "tenant_id": tenant_id, "tenant": known, "held": held, "last": last, "saved": saved, "now": now,
        "said": tones.ASSIGNMENT[AssignmentState(held.state)] if held else tones.Said("idle", "Holds nothing"),
        "step": STEPS.get(held.step, held.step) if held else "",
        "due": idle.due_at(held) if held else None,
        "runs": [(run, tones.RUN[SyncRunState(run.state)], tones.run_verb(run)) for run in runs],
        "running": [(run, tones.RUN[SyncRunState(run.state)], tones.run_verb(run)) for run in running],
        "unsaved_since": min((beat.unsaved_since for beat in beats), default=None),
        "kept_to": max(filter(None, (saved, held.assigned_at or held.created_at))) if held else None,
        "is_overdue": any(beat.is_overdue(now) for beat in beats),
        "interval_s": min(((beat.spec.interval_ms or 0) // 1000 for beat in beats), default=0),
        "has_specs": bool(held and held.pool.sync_specs.exists()),
        "events": Event.objects.filter(tenant_id=tenant_id).exclude(type="sync.progress")[:EVENTS],
    }  # fmt: skip
    return render(request, "pages/tenant.html", context)


@action()
def release(request: HttpRequest, tenant_id: str) -> str:
    """Save and release; the same ends a claim that is under way and tries a failed save again."""
    releases.begin(tenant_id)
    return f"{tenant_id} is being saved and released."


@action()
def discard(request: HttpRequest, tenant_id: str) -> str:
    require_typed(request, tenant_id, "discarded")
    releases.begin(tenant_id, discard=True)
    return f"What {tenant_id} had not saved is given up; it is kept on this node for a while."


@action()
def sync(request: HttpRequest, tenant_id: str) -> str:
    made = syncs.begin(tenant_id, "outward")
    return f"{len(made)} save{'s' if len(made) != 1 else ''} of {tenant_id} queued." if made else "Nothing to save."
