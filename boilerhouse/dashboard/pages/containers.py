"""One container: its properties, its tenant, its log and its resource use; a shell in it; its removal."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from csp.decorators import csp_update
from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone

from boilerhouse.core.models import Role
from boilerhouse.dashboard import badges, charts, consequences, container_charts, feeds, time_steps
from boilerhouse.dashboard.access import action, may, page, slow
from boilerhouse.dashboard.pages import container_logs, removed_containers
from boilerhouse.dashboard.templatetags.ui import short
from pools import errors as pool_errors
from pools.models import Container, ContainerUsage, Tombstone
from pools.states import ContainerState
from syncing import services as syncing
from tenants import removals
from tenants.models import Assignment

EVENTS = 20
ALL = "all"
SPANS = (ALL, "1h", "6h", "24h")
SHORTEST = timedelta(minutes=2)
STEP = timedelta(seconds=5)
"""The charts stay as they are for so long, unless there are new samples."""


def _find(container_id: UUID) -> Container:
    container = Container.objects.select_related("pool", "version__workload").filter(pk=container_id).first()
    if container is None:
        raise pool_errors.ContainerNotFound(f"There is no container {container_id}; it may have been removed.")
    return container


@slow
@page()
def container(request: HttpRequest, container_id: UUID) -> HttpResponse:
    container = Container.objects.select_related("pool", "version__workload").filter(pk=container_id).first()
    if container is None:
        if tombstone := Tombstone.objects.filter(pk=container_id).first():
            return removed_containers.show(request, tombstone)
        raise pool_errors.ContainerNotFound(
            f"There is no container {container_id}. It never existed, or its page is deleted: pages of removed"
            " containers are kept as long as events, unless the state of their tenant is erased."
        )
    assignment = Assignment.objects.live().filter(container_ref=container.pk).first()
    span, period = _span(request, container)
    limits = container.version.spec.resources
    context: dict[str, Any] = {
        "container": container, "held": assignment, "badge": badges.CONTAINER[ContainerState(container.state)],
        "health": badges.health(container), "span": span, "spans": SPANS,
        "charts": container_charts.of(
            _samples(container, period[0]), container_charts.Limits(limits.cpus, limits.memory_mb), period
        ),
        "events": feeds.newest(EVENTS, container_id=str(container.pk)),
        "ports": container.endpoints(), "has_terminal": settings.BOILERHOUSE_TERMINAL,
        "has_files": settings.BOILERHOUSE_FILE_BROWSER,
        "log": container_logs.card_of(request, container) if may(request, Role.OPERATOR) else None,
    }  # fmt: skip
    return render(request, "pages/container.html", context)


def _span(request: HttpRequest, container: Container) -> tuple[str, tuple[datetime, datetime]]:
    """The charts' time range: the last hour, or the container's whole life if that is shorter."""
    now = time_steps.ceil(timezone.now(), STEP)
    age = max(SHORTEST, now - container.created_at)
    span = request.GET.get("range", "")
    if span not in SPANS:
        span = ALL if age < charts.RANGES["1h"] else "1h"
    return span, (now - (age if span == ALL else charts.RANGES[span]), now)


def _samples(container: Container, since: datetime) -> list[container_charts.Sample]:
    rows = ContainerUsage.objects.filter(container_id=container.pk, at__gte=since - timedelta(minutes=1))
    return list(rows.order_by("at").values_list("at", "cpu_ns", "memory_bytes"))


@csp_update({"style-src": ["'self'", "'unsafe-inline'"]})  # xterm.js makes style elements
@page(Role.OPERATOR)
def terminal(request: HttpRequest, container_id: UUID) -> HttpResponse:
    """The page that opens a shell; its input is sent over ``/ws/terminal``. That of a removed container leads to what
    is kept of it."""
    if not Container.objects.filter(pk=container_id).exists() and Tombstone.objects.filter(pk=container_id).exists():
        return HttpResponseRedirect(reverse("container", args=[container_id]))
    container = _find(container_id)
    assignment = Assignment.objects.live().filter(container_ref=container.pk).first()
    context = {
        "container": container, "held": assignment, "is_on": settings.BOILERHOUSE_TERMINAL,
        "limit_s": settings.BOILERHOUSE_TERMINAL_LIMIT_S,
        "is_saved": bool(syncing.specs_to_save(container.pool_id, None)),
    }  # fmt: skip
    return render(request, "pages/terminal.html", context)


@action(asks=consequences.remove_container)
def remove(request: HttpRequest, container_id: UUID) -> HttpResponse:
    """Remove an idle container; a claimed one is saved and released first."""
    container = _find(container_id)
    removal = removals.begin(container_id, discard=False)
    verb = "Saving, releasing and removing" if removal.release else "Removing"
    messages.success(request, f"{verb} {short(str(container.pk))}.")
    return HttpResponseRedirect(reverse("pool", args=[container.pool_id]), status=303)
