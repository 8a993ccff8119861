"""Pools: the list, one pool with its containers, its form, its charts and its deletion."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone

from boilerhouse.core.errors import Conflict, FieldError, Invalid
from boilerhouse.core.models import Event, Role
from boilerhouse.dashboard import (
    charts,
    comparison,
    conflicts,
    consequences,
    container_rows,
    feeds,
    needs,
    questions,
    rolls,
)
from boilerhouse.dashboard.access import action, form_page, page
from boilerhouse.dashboard.forms import ApiForm
from boilerhouse.dashboard.overview import WORST_FIRST, PoolRow, pool_rows
from boilerhouse.dashboard.questions import ANSWER, Question
from boilerhouse.dashboard.scale_effects import ScaleEffect
from boilerhouse.dashboard.table_order import TableOrder
from boilerhouse.dashboard.templatetags.ui import size
from pools import services
from pools.api.serializers import PoolInput, render_pool
from pools.egress import DEFAULT, Mode
from pools.models import Pool, PoolUsage, Workload
from pools.placement import Rules, Strategy
from pools.services import find_pool
from tenants import idle

TABS = (("containers", "Containers"), ("usage", "Usage"), ("configuration", "Configuration"), ("timeline", "Timeline"))
TIMELINE = 30
ATTENTION = "attention"
"""The filter that the overview's figure links to."""
MARKED, MARKS = ("pool.scaled", "pool.warning"), 50


SORTS: dict[str, Callable[[PoolRow], Any]] = {
    "pool": lambda row: row.pool.pk,
    "state": lambda row: WORST_FIRST.index(row.status.state),
    "use": lambda row: row.status.claimed / row.pool.max_size,
    "p95": lambda row: row.claims.p95_ms,
    "cold": lambda row: row.claims.cold_percent if row.claims.count else None,
    "size": lambda row: row.status.size,
    "waiting": lambda row: row.status.waiting,
}


@page()
def pool_list(request: HttpRequest) -> HttpResponse:
    rows = pool_rows()
    term = request.GET.get("q", "").strip()
    matches = [row for row in rows if term.lower() in row.pool.pk or term.lower() in row.pool.name.lower()]
    state = request.GET.get("state", "")
    if state == ATTENTION:
        matches = [row for row in matches if row.needs_attention]
    elif state:
        matches = [row for row in matches if row.status.state == state]
    order = TableOrder(request, SORTS)
    context = {
        "rows": order.of(matches),
        "order": order,
        "total": len(rows),
        "q": term,
        "state": state,
        "states": _states(rows),
    }
    present = needs.of_pools(request, [(row.pool, row.status) for row in rows])
    return render(request, "pages/pools.html", {**context, "needs": present})


def _states(rows: list[PoolRow]) -> list[tuple[str, str]]:
    states = sorted({(row.status.state.value, row.status.state.label) for row in rows})
    return [(ATTENTION, "Needs attention"), *states]


def _context(request: HttpRequest, pool: Pool, tab: str) -> dict[str, Any]:
    """Context of every tab of a pool's page."""
    row = PoolRow(pool, pool.status(), roll=rolls.of_pools([pool]).get(pool.pk))
    present = needs.of_pool(request, pool, row.status)
    reasons = {need.cause.why for need in present}
    return {
        "pool": pool, "row": row, "status": row.status, "tab": tab, "tabs": TABS, "badge": row.badge, "needs": present,
        "warnings": [warning for warning in row.status.warnings if warning.detail not in reasons],
        "held": row.status.claimed + pool.release_failed,
        "asked": ScaleEffect(pool, row.status, request.GET.get("target")),
        "specs": list(pool.sync_specs.order_by("pk").values_list("pk", flat=True)),
    }  # fmt: skip


@page()
def pool(request: HttpRequest, pool_id: str) -> HttpResponse:
    pool = find_pool(pool_id)
    tab = request.GET.get("tab", "containers")
    if tab not in dict(TABS):
        tab = "containers"
    context = _context(request, pool, tab)
    match tab:
        case "containers":
            context["list"] = container_rows.listing(request, pool)
        case "usage":
            span = charts.asked_range(request.GET.get("range"))
            context |= {"span": span, "spans": list(charts.RANGES), "charts": _charts(pool, span)}
            context["weeks"] = comparison.of(pool_id)
        case "configuration":
            context["form"] = pool_form(render_pool(pool))
        case "timeline":
            context["events"] = feeds.newest(TIMELINE, pool_id=pool_id)
    return render(request, "pages/pool.html", context)


def _charts(pool: Pool, span: str) -> list[charts.Chart]:
    since = timezone.now() - charts.RANGES[span]
    names = ("at", "claimed", "idle", "waiting", "cpu_cores", "memory_bytes", "disk_bytes")
    rows = list(PoolUsage.objects.filter(pool=pool, at__gte=since).order_by("at").values_list(*names))

    happened = Event.objects.filter(pool_id=pool.pk, type__in=MARKED, created_at__gte=since).order_by("-id")[:MARKS]
    marks = [(event.created_at, event.type.removeprefix("pool.")) for event in happened]

    def series(position: int) -> list[tuple[datetime, float]]:
        return [(row[0], float(row[position])) for row in rows]

    def whole(value: float) -> str:
        return f"{value:.0f}"

    def cores(value: float) -> str:
        return f"{value:.2f} cores"

    def amount(value: float) -> str:
        return size(int(value))

    return [
        charts.chart(
            "In use and idle", span, {"claimed": series(1), "idle": series(2)}, whole, least=pool.max_size, marks=marks
        ),
        charts.chart("Waiting claims", span, {"waiting": series(3)}, whole),
        charts.chart("CPU, all containers", span, {"used": series(4)}, cores, least=0.1, unit="cores"),
        charts.chart("Memory, all containers", span, {"in use": series(5)}, amount, least=1_000_000, unit="bytes"),
    ]


LEAST_INACTIVE_MS = 10_000
MODE, ALLOW = "network.egress.mode", "network.egress.allow"
STRATEGY, SELECTOR, PER_NODE = "placement.strategy", "placement.nodeSelector", "placement.maxPerNode"
LABELS = {
    "id": ("Id", "Letters, digits and -. Cannot be changed later. Leave empty to derive it from the name"),
    "name": ("Name", "A label; need not be unique"),
    "workloadId": ("Workload", "What the containers run. Cannot be changed later"),
    "minSize": ("Min size", "The smallest number of containers"),
    "maxSize": ("Max size", "The largest number of containers, including starting ones"),
    "minIdle": ("Keep idle", "Idle containers kept ready for claims"),
    "idleTimeoutMs": ("Release when inactive for", "0 means never, otherwise at least 10 s. The state is saved first"),
    "onUnhealthy": ("When a claimed container is unhealthy", "Idle containers are replaced immediately"),
    MODE: ("Outgoing network access", "Takes effect immediately, also for claimed containers"),
    ALLOW: (
        "Additional destinations",
        "Such as 10.0.5.7:5432 or 192.0.2.0/24; with the list also api.example.com:443. Always blocked: the node,"
        " other containers and metadata services",
    ),
    STRATEGY: ("Place new containers", "A container never moves to another node"),
    SELECTOR: (
        "Only on nodes with these labels",
        "Such as gpu=yes zone=cellar. Leave empty for any node. The labels of a node are under Settings, Nodes",
    ),
    PER_NODE: ("Most containers per node", "Leave empty for any number"),
}


def pool_form(values: dict[str, Any], *, is_new: bool = False) -> ApiForm:
    values = {**values, "placement": values.get("placement") or {"strategy": Strategy.SPREAD.value}}
    names = ["id", "name", "workloadId"] if is_new else ["name"]
    names += [
        "minSize",
        "maxSize",
        "minIdle",
        "idleTimeoutMs",
        "onUnhealthy",
        MODE,
        ALLOW,
        STRATEGY,
        SELECTOR,
        PER_NODE,
    ]
    choices: dict[str, list[tuple[str, str]]] = {
        "onUnhealthy": [("report", "Report it"), ("release", "Save and release it")],
        MODE: [(mode.value, MODE_WORDS[mode]) for mode in _modes(values)],
        STRATEGY: [(strategy.value, STRATEGY_WORDS[strategy]) for strategy in STRATEGY_WORDS],
    }
    if is_new:
        choices["workloadId"] = [(pk, pk) for pk in Workload.objects.order_by("id").values_list("pk", flat=True)]
    return ApiForm(
        PoolInput, names, LABELS, values, choices, lists=[ALLOW], pairs=[SELECTOR],
        durations={"idleTimeoutMs": LEAST_INACTIVE_MS}, tops={"minSize": "maxSize", "minIdle": "maxSize"},
    )  # fmt: skip


STRATEGY_WORDS = {
    Strategy.SPREAD: "On the node with the most room",
    Strategy.BINPACK: "On the fullest node that has room",
}
MODE_WORDS = {
    Mode.INTERNET: "Public addresses and DNS",
    Mode.LIST: "Only the listed destinations",
    Mode.NONE: "Nowhere",
    Mode.OPEN: "Everything except the node and other containers",
}


def _modes(values: dict[str, Any]) -> list[Mode]:
    """The default first; the widest only if the deployment allows it, or the pool has it."""
    has_open = ((values.get("network") or {}).get("egress") or {}).get("mode") == Mode.OPEN
    return [mode for mode in MODE_WORDS if mode != Mode.OPEN or has_open or settings.BOILERHOUSE_ALLOW_OPEN_NETWORK]


def _without_default(data: dict[str, Any], network: dict[str, Any] | None) -> None:
    """An unchanged form requests neither a policy nor a placement."""
    egress = data["network"].get("egress")
    if egress == DEFAULT.to_json() and not (network or {}).get("egress"):
        del data["network"]["egress"]
    if data["placement"] is not None and Rules.from_json(data["placement"]) == Rules():
        data["placement"] = None


@page(Role.OPERATOR)
def _new_pool(request: HttpRequest) -> HttpResponse:
    start = {"minSize": 2, "maxSize": 10, "idleTimeoutMs": 0, "workloadId": request.GET.get("workload", "")}
    form = pool_form(start, is_new=True)
    return render(request, "pages/pool_new.html", {"form": form, "workloads": Workload.objects.exists()})


@action()
def _create_pool(request: HttpRequest) -> str | HttpResponse:
    form = pool_form({}, is_new=True)
    data = form.read(request.POST, network={})
    if data is None:
        return render(request, "pages/pool_new.html", {"form": form, "workloads": True}, status=422)
    _without_default(data, None)
    try:
        workload = Workload.objects.filter(pk=data.pop("workload_id")).first()
        if workload is None:
            raise Invalid(FieldError("/workloadId", "There is no such workload.", "not_found"))
        new_pool = services.create_pool(id=data.pop("id", None), name=data.pop("name", None), workload=workload, **data)
    except (Invalid, Conflict) as error:
        form.add(error)
        return render(request, "pages/pool_new.html", {"form": form, "workloads": True}, status=422)
    messages.success(request, f"Pool {new_pool.pk} created.")
    return HttpResponseRedirect(reverse("pool", args=[new_pool.pk]), status=303)


new_pool = form_page(_new_pool, _create_pool)


@action()
def configure(request: HttpRequest, pool_id: str) -> str | HttpResponse:
    pool = find_pool(pool_id)
    form = pool_form(render_pool(pool))
    network = pool.whole_network
    rest = {name: value for name, value in (network or {}).items() if name != "egress"}
    if (keeps_mine := conflicts.wish(request)) is not None:
        form.combine(request.POST, pool_form(render_pool(pool)), keeps_mine=keeps_mine)
        return _configuration(request, pool, form, 200, is_combined=True)
    data = form.read(request.POST, workloadId=pool.workload_id, network=rest)
    if data is None:
        return _configuration(request, pool, form, 422)
    if form.meet(request.POST, pool_form(render_pool(pool)), *conflicts.last_change("pool", pool_id)):
        return _configuration(request, pool, form, 409)
    if question := _asks_first(request, pool, data["idle_timeout_ms"]):
        return questions.show(request, question)
    data.pop("workload_id")
    _without_default(data, network)
    try:
        services.update_pool(pool_id, name=data.pop("name", None), **data)
    except (Invalid, Conflict) as error:
        form.add(error)
        return _configuration(request, pool, form, 422)
    return f"{pool_id} saved."


def _configuration(request: HttpRequest, pool: Pool, form: ApiForm, status: int, **more: Any) -> HttpResponse:
    """The pool's page with this form."""
    context = {**_context(request, pool, "configuration"), "form": form, **more}
    return render(request, "pages/pool.html", context, status=status)


def _asks_first(request: HttpRequest, pool: Pool, timeout_ms: int) -> Question | None:
    """The question if the new time without activity releases tenants now, unless it has been answered."""
    before_ms = pool.idle_timeout_ms
    if not timeout_ms or (before_ms and timeout_ms >= before_ms):
        return None
    inactive = idle.inactive(pool.pk, timeout_ms).count()
    if not inactive:
        return None
    fields = [(name, str(value)) for name, value in request.POST.items() if name not in ANSWER]
    question = consequences.shorter_inactivity(pool.pk, timeout_ms, inactive, fields)
    if request.POST.get("asked") != question.kind:
        return question
    questions.check_typed(question, request)
    return None


@action()
def scale(request: HttpRequest, pool_id: str) -> str | HttpResponse:
    """A size that is not allowed is in the URL until another one is, and the page says under the field what is."""
    target = request.POST.get("targetSize", "").strip()[:20]
    pool = find_pool(pool_id)
    scale_effect = ScaleEffect(pool, pool.status(), target)
    try:
        services.scale(pool_id, -1 if scale_effect.size is None else scale_effect.size)
    except (Invalid, Conflict):
        query = urlencode({"tab": request.POST.get("tab", "containers"), "target": target})
        return HttpResponseRedirect(f"{reverse('pool', args=[pool_id])}?{query}#scale", status=303)
    message = f"Scaling {pool_id} to {scale_effect.size}."
    if "target=" not in request.headers.get("Referer", ""):
        return message
    messages.success(request, message)
    tab = urlencode({"tab": request.POST.get("tab", "containers")})
    return HttpResponseRedirect(f"{reverse('pool', args=[pool_id])}?{tab}", status=303)


@action()
def pause(request: HttpRequest, pool_id: str) -> str:
    services.pause(pool_id)
    return f"Refill of {pool_id} paused. Idle containers can still be claimed."


@action()
def resume(request: HttpRequest, pool_id: str) -> str:
    services.resume(pool_id)
    return f"{pool_id} resumed."


@action(asks=consequences.drain_pool)
def drain(request: HttpRequest, pool_id: str) -> str:
    services.drain(pool_id)
    return f"Draining {pool_id}: new claims are refused and idle containers removed."


@action(asks=consequences.delete_pool)
def delete(request: HttpRequest, pool_id: str) -> str | HttpResponse:
    services.start_deleting(pool_id, force=True)
    messages.success(request, f"Deleting {pool_id}. Its tenants are saved and released first.")
    return HttpResponseRedirect(reverse("pools"), status=303)


@page()
def effect(request: HttpRequest, pool_id: str) -> HttpResponse:
    """The effect of a target size, for the form."""
    pool = find_pool(pool_id)
    scale_effect = ScaleEffect(pool, pool.status(), request.GET.get("targetSize", ""))
    return render(request, "pages/pool_effect.html", {"pool": pool, "asked": scale_effect})
