"""One container: what it is, who holds it, what it uses and says."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone

from boilerhouse.core.errors import BoilerhouseError
from boilerhouse.core.models import Event
from boilerhouse.core.templatetags.ui import short, size
from boilerhouse.dashboard import charts, tones
from boilerhouse.dashboard.access import action, page, slow
from pools import errors as pool_errors
from pools.models import Container, ContainerUsage
from pools.states import ContainerState
from tenants import removals, working
from tenants.models import Assignment

LOG_LINES = 500
EVENTS = 20
SPANS = ("1h", "6h", "24h")


def _find(container_id: UUID) -> Container:
    found = Container.objects.select_related("pool", "version__workload").filter(pk=container_id).first()
    if found is None:
        raise pool_errors.ContainerNotFound(f"There is no container {container_id}; it may have been removed.")
    return found


@slow
@page()
def container(request: HttpRequest, container_id: UUID) -> HttpResponse:
    found = _find(container_id)
    held = Assignment.objects.live().filter(container_ref=found.pk).first()
    span = request.GET.get("range", "1h")
    span = span if span in SPANS else "1h"
    context: dict[str, Any] = {
        "container": found, "held": held, "said": tones.CONTAINER[ContainerState(found.state)],
        "health": tones.health(found), "span": span, "spans": SPANS, "charts": _charts(found, span),
        "events": Event.objects.filter(container_id=str(found.pk)).exclude(type="sync.progress")[:EVENTS],
        "ports": found.endpoints(), "log_lines": LOG_LINES, **_logs(request, found),
    }  # fmt: skip
    return render(request, "pages/container.html", context)


def _lines(found: Container) -> list[str]:
    return working.logs(found, LOG_LINES, None).decode(errors="replace").splitlines()


def _logs(request: HttpRequest, found: Container) -> dict[str, Any]:
    wanted = request.GET.get("q", "")[:200]
    try:
        lines = _lines(found)
    except BoilerhouseError as error:
        return {"log_error": error.detail, "log_q": wanted}
    shown = [line for line in lines if wanted.lower() in line.lower()]
    return {"lines": shown, "log_total": len(lines), "log_q": wanted}


@slow
@page()
def logs(request: HttpRequest, container_id: UUID) -> HttpResponse:
    """The same lines as a file."""
    found = _find(container_id)
    answer = HttpResponse("\n".join([*_lines(found), ""]), content_type="text/plain; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="{short(str(found.pk))}.log"'
    return answer


def _charts(found: Container, span: str) -> list[charts.Chart]:
    since = timezone.now() - charts.RANGES[span] - timedelta(minutes=1)
    names = ("at", "cpu_ns", "memory_bytes")
    rows = list(ContainerUsage.objects.filter(container_id=found.pk, at__gte=since).order_by("at").values_list(*names))
    cores: list[tuple[datetime, float]] = []
    for (before, used, _), (at, total, _) in pairwise(rows):
        seconds = (at - before).total_seconds()
        if seconds > 0 and total >= used:  # a restarted engine counts from zero
            cores.append((at, (total - used) / 1e9 / seconds))
    memory = [(at, float(amount)) for at, _, amount in rows]
    return [
        charts.chart("CPU", span, {"used": cores}, lambda value: f"{value:.2f} cores", least=0.1),
        charts.chart("Memory", span, {"in use": memory}, lambda value: size(int(value)), least=1_000_000),
    ]


@action()
def remove(request: HttpRequest, container_id: UUID) -> HttpResponse:
    """Remove an idle one; a held one is saved and released first."""
    found = _find(container_id)
    removal = removals.begin(container_id, discard=False)
    said = "is being saved, released and removed" if removal.release else "is being removed"
    messages.success(request, f"{short(str(found.pk))} {said}.")
    return HttpResponseRedirect(reverse("pool", args=[found.pool_id]), status=303)
