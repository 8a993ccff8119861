"""The sync monitor: running and past runs, and the health of sinks; and one run."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

from boilerhouse.attention import causes, save_causes
from boilerhouse.core.models import Event
from boilerhouse.core.text import lines
from boilerhouse.dashboard import badges, charts, exports, failures, needs, sink_strips, transfers
from boilerhouse.dashboard.access import action, page
from boilerhouse.dashboard.bounded_counts import up_to
from boilerhouse.dashboard.listing import Choice
from boilerhouse.dashboard.run_history import RunHistory
from boilerhouse.dashboard.sink_strips import Strip
from boilerhouse.dashboard.templatetags.ui import size
from syncing.models import SyncRun, SyncSpec, sent
from syncing.sink_words import explain
from syncing.states import UNFINISHED, Direction, SyncRunState, Trigger
from tenants import errors, syncs

SHOWN_RUNNING = 20
SHOWN_UNSAVED = 50
CHARTED = 10_000
COLUMNS: exports.Columns = [
    ("id", lambda run: run.pk), ("spec", lambda run: run.spec_id), ("tenant", lambda run: run.tenant_id),
    ("generation", lambda run: run.generation), ("direction", lambda run: run.direction),
    ("trigger", lambda run: run.trigger), ("state", lambda run: run.state),
    ("bytes", lambda run: run.progress.get("bytes", 0)), ("sentBytes", lambda run: run.sent_bytes),
    ("files", lambda run: run.progress.get("files", 0)),
    ("deleted", lambda run: run.deleted), ("createdAt", lambda run: run.created_at),
    ("startedAt", lambda run: run.started_at), ("finishedAt", lambda run: run.finished_at),
    ("error", lambda run: run.error_code), ("detail", lambda run: run.error_detail),
]  # fmt: skip


def with_badges(runs: Any) -> list[tuple[SyncRun, badges.Badge, str]]:
    """Each run with its state and action as text."""
    return [(run, badges.RUN[SyncRunState(run.state)], badges.run_verb(run)) for run in runs]


def checked(specs: list[SyncSpec]) -> list[tuple[SyncSpec, badges.Badge, Strip]]:
    """Each spec with the state of its sink and the checks of the last day."""
    strips = sink_strips.of_specs([spec.pk for spec in specs])
    return [(spec, badges.sink(spec), strips[spec.pk]) for spec in specs]


def not_saved() -> list[tuple[Any, str]]:
    """Released tenants whose state is not saved, longest first, each with the cause."""
    return [(row, explain(row.outcome, row.outcome_detail).text) for row in save_causes.unsaved()[:SHOWN_UNSAVED]]


@page()
def monitor(request: HttpRequest) -> HttpResponse:
    specs = list(SyncSpec.objects.order_by("pk"))
    failed = failures.of_last_day()
    recent = SyncRun.objects.filter(finished_at__gte=failed.since)
    states = [(state.value, badges.RUN[state].word) for state in SyncRunState if state not in UNFINISHED]
    choices = [
        Choice("state", "result", "state", states),
        Choice("spec", "spec", "spec_id", [(spec.pk, spec.pk) for spec in specs]),
        Choice("trigger", "trigger", "trigger", Trigger.choices),
    ]
    history = RunHistory(request, SyncRun.objects.all(), choices)
    if exports.is_requested(request):
        return exports.as_csv("sync-runs", history.listing.all, COLUMNS)
    span = charts.asked_range(request.GET.get("range", "24h"))
    context: dict[str, Any] = {
        "list": history, "days": [(day, with_badges(day.rows)) for day in history.days], "zone": str(history.zone),
        **_running(), "total": up_to(recent),
        "failures": failed, "sinks": checked(specs), "unsaved": not_saved(),
        "unsaved_count": save_causes.unsaved().count(), "span": span, "spans": list(charts.RANGES),
        "charts": _charts(span), "needs": needs.of(causes.of_saves(), request), "keep": history.address.before("range"),
    }  # fmt: skip
    return render(request, "pages/sync.html", context)


def _running() -> dict[str, Any]:
    """The unfinished runs: those that are listed, and how many there are, are to be listed, and are brief so far."""
    unfinished = SyncRun.objects.unfinished()
    lasting = transfers.lasting(unfinished, timezone.now())
    count, listed = unfinished.count(), lasting.count()
    running = with_badges(lasting[:SHOWN_RUNNING])
    return {"running": running, "count": count, "listed": listed, "brief": max(0, count - listed)}


def _charts(span: str) -> list[charts.Chart]:
    """Transferred bytes and results, per part of the time range."""
    start = charts.end_of(span) - charts.RANGES[span]
    step = charts.RANGES[span] / 48
    runs = SyncRun.objects.filter(finished_at__gte=start).order_by("-finished_at").annotate(sent=sent())
    columns = ("finished_at", "direction", "state", "sent")
    rows = list(runs.values_list(*columns)[:CHARTED])
    saved, restored, failed, finished = ([0.0] * 49 for _ in range(4))
    for ended, direction, state, amount_moved in rows:
        slot = min(48, int((ended - start) / step))
        amounts = restored if direction == Direction.DOWNLOAD else saved
        amounts[slot] += float(amount_moved or 0)
        (failed if state == SyncRunState.FAILED else finished)[slot] += 1

    def series(values: list[float]) -> list[tuple[datetime, float]]:
        return [(start + step * number, value) for number, value in enumerate(values)] if rows else []

    def amount(value: float) -> str:
        return size(int(value))

    def whole(value: float) -> str:
        return f"{value:.0f}"

    bytes_of = {"saved": series(saved), "restored": series(restored)}
    runs_of = {"done": series(finished), "failed": series(failed)}
    moved = f"{amount(sum(saved))} saved, {amount(sum(restored))} restored"
    results = f"{whole(sum(finished))} done, {whole(sum(failed))} failed"
    if len(rows) == CHARTED:
        moved, results = (f"{words}, in the newest {CHARTED:,} runs" for words in (moved, results))
    return [
        charts.chart("Transferred", span, bytes_of, amount, least=1000, unit="bytes", now=moved, every=step),
        charts.chart("Runs", span, runs_of, whole, now=results, every=step),
    ]


@page()
def run(request: HttpRequest, run_id: UUID) -> HttpResponse:
    run = SyncRun.objects.select_related("spec").filter(pk=run_id).first()
    if run is None:
        raise errors.RunNotFound(f"There is no sync run {run_id}; runs are deleted after their retention.")
    events = Event.objects.filter(tenant_id=run.tenant_id, type__startswith="sync.").exclude(type="sync.progress")
    state = SyncRunState(run.state)
    context: dict[str, Any] = {
        "run": run, "badge": badges.RUN[state], "verb": badges.run_verb(run), "is_running": state in UNFINISHED,
        "events": [event for event in events.order_by("-id")[:200] if event.payload.get("runId") == str(run.pk)][:20],
        "lines": [line for line in lines(run.error_detail) if line],
    }  # fmt: skip
    return render(request, "pages/run.html", context)


@action()
def cancel(request: HttpRequest, run_id: UUID) -> str:
    run = syncs.cancel(run_id)
    return f"{badges.run_verb(run)} of {run.tenant_id} is being cancelled. Its changes at the sink are rolled back."
