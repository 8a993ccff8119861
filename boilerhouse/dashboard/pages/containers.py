"""One container: its properties, its tenant and its resource use; its live log, and a shell in it."""

from __future__ import annotations

import time
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async
from csp.decorators import csp_update
from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from boilerhouse.core import text
from boilerhouse.core.errors import BoilerhouseError
from boilerhouse.core.events import PROGRESS
from boilerhouse.core.models import Event, Role
from boilerhouse.dashboard import badges, charts, consequences
from boilerhouse.dashboard.access import action, may, page, signed_in, slow
from boilerhouse.dashboard.templatetags.ui import short, size
from boilerhouse.process import budgets
from boilerhouse.web.streaming import Stream, Writer, from_thread
from pools import errors as pool_errors
from pools.models import Container, ContainerUsage
from pools.states import ContainerState
from tenants import activity, removals
from tenants.models import Assignment

LOG_LINES = (500, 2000, 5000)
MAX_TAIL = 10_000
EVENTS = 20
SPANS = ("1h", "6h", "24h")
LOOK_AT_SESSION_EVERY_S = 5.0
LEVELS = (("error", ("error", "fatal", "critical", "traceback", "panic")), ("warn", ("warn",)))


def _find(container_id: UUID) -> Container:
    container = Container.objects.select_related("pool", "version__workload").filter(pk=container_id).first()
    if container is None:
        raise pool_errors.ContainerNotFound(f"There is no container {container_id}; it may have been removed.")
    return container


@slow
@page()
def container(request: HttpRequest, container_id: UUID) -> HttpResponse:
    container = _find(container_id)
    assignment = Assignment.objects.live().filter(container_ref=container.pk).first()
    span = request.GET.get("range", "1h")
    span = span if span in SPANS else "1h"
    context: dict[str, Any] = {
        "container": container, "held": assignment, "badge": badges.CONTAINER[ContainerState(container.state)],
        "health": badges.health(container), "span": span, "spans": SPANS, "charts": _charts(container, span),
        "events": Event.objects.filter(container_id=str(container.pk)).exclude(type__in=PROGRESS)[:EVENTS],
        "ports": container.endpoints(), "has_terminal": settings.BOILERHOUSE_TERMINAL,
        **(_logs(request, container) if may(request, Role.OPERATOR) else {}),
    }  # fmt: skip
    return render(request, "pages/container.html", context)


@dataclass(frozen=True, slots=True)
class LogLine:
    at: str
    """RFC 3339 with nanoseconds, which distinguishes lines."""
    text: str
    tone: str

    @property
    def clock(self) -> str:
        return self.at[11:23]


def _tone(text: str) -> str:
    head = text[:200].lower()
    return next((tone for tone, words in LEVELS if any(word in head for word in words)), "")


def log_lines(data: bytes) -> list[LogLine]:
    """The engine's lines, each of which begins with a timestamp; other line breaks do not count."""
    lines = []
    for line in text.lines(data.decode(errors="replace")):
        at, _, words = line.partition(" ")
        lines.append(LogLine(text.one_line(at), text.printable(words), _tone(words)))
    return lines


def _moment(text: str) -> float | None:
    """Unix seconds of an RFC 3339 time; the engine's have more digits than Python supports."""
    head, dot, rest = text.partition(".")
    with suppress(ValueError):
        at = parse_datetime(f"{head}{dot}{rest[:6].rstrip('Z')}Z" if dot else text)
        return at.timestamp() if at is not None and at.tzinfo is not None and at.timestamp() >= 0 else None
    return None


def _asked_lines(request: HttpRequest) -> int:
    value = request.GET.get("lines", "")
    return next((count for count in LOG_LINES if str(count) == value), LOG_LINES[0])


def _logs(request: HttpRequest, container: Container) -> dict[str, Any]:
    needle, count = request.GET.get("q", "").replace("\0", "")[:200], _asked_lines(request)
    level = request.GET.get("level", "")
    context: dict[str, Any] = {"log_q": needle, "log_lines": count, "log_level": level, "log_counts": LOG_LINES}
    try:
        lines = log_lines(activity.logs(container, count, None, timestamps=True))
    except BoilerhouseError as error:
        return {**context, "log_error": error.detail}
    tones_wanted = {"warn": {"warn", "error"}, "error": {"error"}}.get(level)
    fits = [
        line for line in lines
        if needle.lower() in line.text.lower() and (tones_wanted is None or line.tone in tones_wanted)
    ]  # fmt: skip
    return {**context, "lines": fits, "log_total": len(lines), "log_line": request.GET.get("line", "")}


@slow
@page(Role.OPERATOR)
def logs(request: HttpRequest, container_id: UUID) -> HttpResponse:
    """The same lines as a file, each with its time in UTC."""
    container = _find(container_id)
    needle = request.GET.get("q", "").replace("\0", "")[:200].lower()
    lines = log_lines(activity.logs(container, MAX_TAIL, None, timestamps=True))
    matching = [f"{line.at} {line.text}" for line in lines if needle in line.text.lower()]
    answer = HttpResponse("\n".join([*matching, ""]), content_type="text/plain; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="{short(str(container.pk))}.log"'
    return answer


@slow
@page(Role.OPERATOR)
def follow(request: HttpRequest, container_id: UUID) -> HttpResponse:
    """The live log, each line with its time, until the container ends or the user leaves."""
    container = _find(container_id)
    since = _moment(request.GET.get("since", ""))
    owners = budgets.user(request.user.get_username()), budgets.container(container.pk)
    hold = budgets.follows.enter(*owners)
    with hold.kept():
        source = activity.follow_logs(container, 0 if since is None else MAX_TAIL, since, timestamps=True)
    is_signed_in = sync_to_async(signed_in, thread_sensitive=False)
    user, session = request.user, request.session.session_key

    async def run(writer: Writer) -> None:
        checked_at, printer = time.monotonic(), text.Printer()
        with suppress(pool_errors.EngineUnavailable):  # the response has started, so it can only end
            async with aclosing(from_thread(source, LOOK_AT_SESSION_EVERY_S)) as chunks:
                async for chunk in chunks:
                    await writer.write(printer.feed(chunk))
                    if time.monotonic() - checked_at >= LOOK_AT_SESSION_EVERY_S:
                        checked_at = time.monotonic()
                        if not await is_signed_in(user, session, Role.OPERATOR):
                            return

    stream = Stream(run, "text/plain; charset=utf-8")
    stream.when_closed(source.close)
    stream.when_closed(hold.release)
    return stream


@csp_update({"style-src": ["'self'", "'unsafe-inline'"]})  # xterm.js makes style elements
@page(Role.OPERATOR)
def terminal(request: HttpRequest, container_id: UUID) -> HttpResponse:
    """The page that opens a shell; its input is sent over ``/ws/terminal``."""
    container = _find(container_id)
    assignment = Assignment.objects.live().filter(container_ref=container.pk).first()
    context = {
        "container": container, "held": assignment, "is_on": settings.BOILERHOUSE_TERMINAL,
        "limit_s": settings.BOILERHOUSE_TERMINAL_LIMIT_S,
    }  # fmt: skip
    return render(request, "pages/terminal.html", context)


def _charts(container: Container, span: str) -> list[charts.Chart]:
    since = timezone.now() - charts.RANGES[span] - timedelta(minutes=1)
    names = ("at", "cpu_ns", "memory_bytes")
    rows = list(
        ContainerUsage.objects.filter(container_id=container.pk, at__gte=since).order_by("at").values_list(*names)
    )
    cores: list[tuple[datetime, float]] = []
    for (before, used, _), (at, total, _) in pairwise(rows):
        seconds = (at - before).total_seconds()
        if seconds > 0 and total >= used:  # a restarted engine counts from zero
            cores.append((at, (total - used) / 1e9 / seconds))
    memory = [(at, float(amount)) for at, _, amount in rows]
    return [
        charts.chart("CPU", span, {"used": cores}, lambda value: f"{value:.2f} cores", least=0.1, unit="cores"),
        charts.chart("Memory", span, {"in use": memory}, lambda value: size(int(value)), least=1_000_000, unit="bytes"),
    ]


@action(asks=consequences.remove_container)
def remove(request: HttpRequest, container_id: UUID) -> HttpResponse:
    """Remove an idle container; a claimed one is saved and released first."""
    container = _find(container_id)
    removal = removals.begin(container_id, discard=False)
    verb = "Saving, releasing and removing" if removal.release else "Removing"
    messages.success(request, f"{verb} {short(str(container.pk))}.")
    return HttpResponseRedirect(reverse("pool", args=[container.pool_id]), status=303)
