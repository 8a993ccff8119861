"""Template tags: icons, times, sizes, and an event as a sentence."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from html import unescape
from typing import Any

from django import template
from django.template.context import Context
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join, strip_tags
from django.utils.safestring import SafeString

from boilerhouse.core.models import Event, Role
from boilerhouse.core.roles import reaches
from boilerhouse.dashboard.json_colours import coloured

register = template.Library()


@register.simple_tag
def icon(name: str, more: str = "") -> SafeString:
    """An icon of the sprite: ``i-…`` for things, ``s-…`` for the shape of a status."""
    kind = "s" if name.startswith("s-") else "i"
    return format_html('<svg class="{} {}" aria-hidden="true"><use href="#{}"/></svg>', kind, more, name)


@register.filter
def clock(value: datetime) -> SafeString:
    """A time with the absolute time as title."""
    absolute = f"{value:%Y-%m-%d %H:%M:%S} UTC"
    text = f"{value:%H:%M:%S}"
    return format_html('<time datetime="{}" title="{}" data-clock>{}</time>', value.isoformat(), absolute, text)


@register.filter
def as_of(value: datetime) -> SafeString:
    """When what is shown was read, which the browser moves on with each answer."""
    absolute = f"{value:%Y-%m-%d %H:%M:%S} UTC"
    text = f"{value:%H:%M:%S}"
    form = '<time datetime="{}" title="{}" data-clock data-as-of>{}</time>'
    return format_html(form, value.isoformat(), absolute, text)


@register.filter
def at_time(value: datetime) -> SafeString:
    """A date with its time."""
    text = f"{value:%Y-%m-%d %H:%M:%S}"
    return format_html('<time datetime="{}" title="{} UTC" data-clock="date">{}</time>', value.isoformat(), text, text)


@register.filter
def ago(value: datetime | None) -> SafeString:
    """How long ago, ticking in the browser, with the absolute time as title; ``never`` without one."""
    if value is None:
        return SafeString("never")
    absolute = f"{value:%Y-%m-%d %H:%M:%S} UTC"
    seconds = (timezone.now() - value).total_seconds()
    distance = duration(abs(seconds))
    text = f"in {distance}" if seconds < 0 else f"{distance} ago"
    return format_html('<time datetime="{}" title="{}" data-rel="ago">{}</time>', value.isoformat(), absolute, text)


@register.filter
def age(value: datetime | None) -> SafeString:
    """How long since, ticking in the browser."""
    if value is None:
        return SafeString("never")
    text = duration((timezone.now() - value).total_seconds())
    absolute = f"{value:%Y-%m-%d %H:%M:%S} UTC"
    return format_html('<time datetime="{}" title="{}" data-rel="age">{}</time>', value.isoformat(), absolute, text)


@register.filter
def duration(seconds: float | None) -> str:
    """``320 ms``, ``6.1 s``, ``42 s``, ``3 h 12 min``, ``2 d 4 h``."""
    if seconds is None:
        return "not known"
    if seconds < 1:
        return f"{max(0, round(seconds * 1000))} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    for unit, length, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= length:
            rest = int(seconds % length // part)
            return f"{int(seconds // length)} {unit}" + (f" {rest} {smaller}" if rest and unit != "min" else "")
    return f"{round(seconds)} s"


@register.filter
def duration_ms(milliseconds: float | None) -> str:
    return duration(None if milliseconds is None else milliseconds / 1000)


@register.filter
def took(run: Any) -> str:
    """How long something with ``started_at`` and ``finished_at`` took; until it ends, how long since, ticking."""
    if run.started_at is None:
        return ""
    if run.finished_at is None:
        return age(run.started_at)
    return duration((run.finished_at - run.started_at).total_seconds())


@register.filter
def digest(value: str) -> str:
    """An image's digest or id, as short as the engine's own tools show it."""
    return value.rpartition(":")[2][:12]


@register.filter
def at(mapping: Any, key: str) -> Any:
    """``mapping[key]``, which templates cannot write."""
    return mapping.get(key, "")


SHAPES = frozenset({"ok", "busy", "warn", "error", "idle", "unknown"})


@register.simple_tag
def chip(badge: Any) -> SafeString:
    """A status with its style and shape, for headers and lists."""
    assert badge.tone in SHAPES
    return format_html('<span class="chip t-{}">{}{}</span>', badge.tone, icon(f"s-{badge.tone}"), badge.word)


@register.simple_tag
def word(badge: Any) -> SafeString:
    """The same for dense cells."""
    assert badge.tone in SHAPES
    return format_html('<span class="word t-{}">{}{}</span>', badge.tone, icon(f"s-{badge.tone}"), badge.word)


@register.simple_tag
def tenant_link(tenant_id: str) -> SafeString:
    return format_html('<a class="mono" href="{}">{}</a>', reverse("tenant", args=[tenant_id]), tenant_id)


@register.simple_tag
def container_link(container_id: object) -> SafeString:
    return format_html(
        '<a class="mono nowrap" href="{}" title="{}">{}</a>',
        reverse("container", args=[container_id]), container_id, short(str(container_id)),
    )  # fmt: skip


@register.simple_tag
def pool_link(pool_id: str) -> SafeString:
    return format_html('<a href="{}">{}</a>', reverse("pool", args=[pool_id]), pool_id)


def _links(route: str, ids: Iterable[str]) -> SafeString:
    """Links to the pages of several objects, separated by commas; ``nothing`` if there are none."""
    ids = list(ids)
    if not ids:
        return SafeString('<span class="faint">nothing</span>')
    return format_html_join(", ", '<a href="{}">{}</a>', ((reverse(route, args=[pk]), pk) for pk in ids))


@register.simple_tag
def pool_links(ids: Iterable[str]) -> SafeString:
    return _links("pool", ids)


@register.simple_tag
def spec_links(ids: Iterable[str]) -> SafeString:
    return _links("sync-spec", ids)


@register.simple_tag
def workload_links(ids: Iterable[str]) -> SafeString:
    return _links("workload", ids)


def _component(context: Context, name: str, text: str, **values: str) -> SafeString:
    """The component, with the content of the block as ``text``."""
    with context.push(text=text, **values):
        return context.template.engine.get_template(f"components/{name}.html").render(context)  # type: ignore[union-attr]


@register.simple_block_tag(takes_context=True)
def danger(context: Context, content: str, *, title: str, url: str, verb: str) -> SafeString:
    """An irreversible action, with the button that asks its question."""
    return _component(context, "danger", content, title=title, url=url, verb=verb)


@register.simple_block_tag(takes_context=True)
def empty_list(
    context: Context, content: str, *, icon_name: str, things: str, new_url: str = "", verb: str = ""
) -> SafeString:
    """An empty list: nothing matches the filters, or there is nothing yet, which the text explains.

    ``new_url`` is where an operator makes the first one; ``verb`` says so.
    """
    return _component(context, "empty_list", content, icon_name=icon_name, things=things, new_url=new_url, verb=verb)


@register.simple_tag(takes_context=True)
def admin_link(context: Any, row: Any) -> SafeString:
    """The object in the Django admin, for users who may see it there."""
    meta, request = row._meta, context["request"]
    may_look = request.user.has_perm(f"{meta.app_label}.view_{meta.model_name}")
    if not may_look or not reaches(getattr(request, "role", None), Role.ADMIN):
        return SafeString("")
    url = reverse(f"admin:{meta.app_label}_{meta.model_name}_change", args=[row.pk])
    return format_html('<dt>Admin</dt><dd><a href="{}">View in admin</a></dd>', url)


@register.simple_tag
def sort_head(listing: Any, name: str, label: str, more: str = "") -> SafeString:
    """The header of a sortable column."""
    direction = listing.direction(name)
    arrow = {"": "i-chevrons-up-down", "ascending": "i-arrow-up", "descending": "i-arrow-down"}[direction]
    sort = format_html(' aria-sort="{}"', direction) if direction else ""
    return format_html(
        '<th scope="col"{}{}><a href="{}">{}{}</a></th>',
        format_html(' class="{}"', more) if more else "", sort, listing.sort_url(name), label, icon(arrow),
    )  # fmt: skip


@register.filter
def pretty(value: Any) -> str:
    """JSON, formatted for people."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


@register.filter
def json_code(text: str) -> SafeString:
    """JSON text with coloured tokens, for a ``.code`` block."""
    return coloured(text)


@register.filter
def size(value: int | None) -> str:
    """Bytes for people: 48.2 MB."""
    amount = float(value or 0)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


TONES = {
    "container.created": "busy",
    "container.claimed": "ok",
    "container.claim_failed": "error",
    "container.ready": "ok",
    "container.released": "idle",
    "container.destroyed": "idle",
    "container.failed": "error",
    "container.release_failed": "error",
    "container.lost": "error",
    "container.unhealthy": "warn",
    "sync.started": "busy",
    "sync.progress": "busy",
    "sync.completed": "ok",
    "sync.failed": "error",
    "sync.cancelled": "idle",
    "pool.warning": "warn",
    "pool.recovered": "ok",
    "pool.scaled": "busy",
    "pool.pulling": "busy",
    "pool.pulled": "ok",
    "workload.updated": "idle",
    "node.silent": "error",
    "node.returned": "ok",
    "node.lost": "error",
    "node.draining": "warn",
    "node.drained": "idle",
    "node.removed": "idle",
    "node.thawed": "warn",
    "node.cordoned": "warn",
    "node.uncordoned": "ok",
    "node.joined": "ok",
}


@register.filter
def tone(event: Event) -> str:
    return TONES.get(event.type, "unknown")


@register.filter
def short(value: str) -> str:
    """The end of an id, because time-ordered ids differ there."""
    return f"c-{value[-8:]}" if len(value) == 36 else value


def _mono(value: object) -> SafeString:
    return format_html('<span class="mono">{}</span>', value)


@register.filter
def sentence(event: Event) -> SafeString:
    """An event as a sentence."""
    payload: dict[str, Any] = event.payload
    tenant = tenant_link(event.tenant_id) if event.tenant_id else _mono("no tenant")
    container = container_link(event.container_id) if event.container_id else _mono("")
    pool = pool_link(event.pool_id) if event.pool_id else SafeString("")
    match event.type:
        case "container.claimed":
            parts = [
                tenant,
                " claimed ",
                container,
                " in ",
                pool,
                f", {payload.get('source')}, {payload.get('latencyMs')} ms",
            ]
        case "container.claim_failed":
            parts = ["Claim of ", tenant, " in ", pool, f" failed: {payload.get('detail') or payload.get('code')}"]
        case "container.released":
            parts = [tenant, " was released from ", container, _how_released(payload)]
        case "container.created":
            parts = [pool, " is starting ", container]
        case "container.ready":
            parts = [container, " of ", pool, f" is ready after {payload.get('durationMs')} ms"]
        case "container.destroyed":
            parts = [container, " of ", pool, " was removed"]
        case "container.unhealthy":
            parts = [container, " of ", pool, f" is unhealthy: {payload.get('detail')}"]
        case "container.failed":
            parts = [container, " of ", pool, f" failed to start: {payload.get('detail')}"]
        case "container.release_failed":
            parts = ["State of ", tenant, f" was not saved: {payload.get('detail')}"]
        case "container.lost":
            node = _mono(payload.get("node"))
            parts = [tenant, " lost ", container, " of ", pool, " with node ", node, _last_saved(payload)]
        case "sync.started":
            parts = ["Restoring " if payload.get("direction") == "download" else "Saving ", tenant]
        case "sync.progress":
            verb = "Restoring " if payload.get("direction") == "download" else "Saving "
            parts = [verb, tenant, f": {size(payload.get('bytes'))} of {size(payload.get('totalBytes'))}"]
        case "sync.completed":
            verb = "Restored " if payload.get("direction") == "download" else "Saved "
            parts = [verb, tenant, f": {_transfer(payload)}"]
        case "sync.failed" | "sync.cancelled":
            verb = "Restore of " if payload.get("direction") == "download" else "Save of "
            parts = [verb, tenant, f" {event.type.partition('.')[2]}: {payload.get('detail')}"]
        case "pool.pulling":
            parts = [pool, f" is pulling {payload.get('image')}: {payload.get('percent') or 0} %"]
        case "pool.pulled":
            parts = [pool, f" pulled {payload.get('image')}, {size(payload.get('bytes'))}"]
        case "pool.scaled":
            parts = [pool, f" {_scaled(payload)}"]
        case "pool.warning":
            parts = [pool, f": {payload.get('detail')}"]
        case "pool.recovered":
            parts = [pool, " recovered"]
        case "workload.updated":
            parts = [
                "Workload ",
                _mono(payload.get("workloadId")),
                _workload_change(payload),
            ]
        case "node.silent":
            parts = ["Node ", _mono(payload.get("node")), " has no running worker; its work waits"]
        case "node.lost":
            parts = ["Node ", _mono(payload.get("node")), f" was declared lost{_why(payload)}"]
        case "node.draining":
            parts = ["Node ", _mono(payload.get("node")), f" is draining{_why(payload)}"]
        case "node.drained":
            parts = ["Node ", _mono(payload.get("node")), " is drained: it has no containers"]
        case "node.removed":
            parts = ["Node ", _mono(payload.get("node")), " was removed"]
        case "node.thawed":
            parts = ["Containers of node ", _mono(payload.get("node")), f" were frozen for {payload.get('frozenS')} s"]
        case "node.returned":
            parts = ["Node ", _mono(payload.get("node")), " is back"]
        case "node.cordoned":
            parts = ["Node ", _mono(payload.get("node")), f" gets no new containers{_why(payload)}"]
        case "node.uncordoned":
            parts = ["Node ", _mono(payload.get("node")), " gets new containers again"]
        case "node.joined":
            parts = ["Node ", _mono(payload.get("node")), " has joined"]
        case _:
            parts = [event.type]
    return format_html_join("", "{}", ((part,) for part in parts))


def _why(payload: dict[str, Any]) -> str:
    return f": {payload['reason']}" if payload.get("reason") else ""


def _last_saved(payload: dict[str, Any]) -> str:
    return f"; last saved {payload['savedAt']}" if payload.get("savedAt") else "; its state was never saved"


REASONS = {
    "idle": "it was inactive for longer than its pool allows", "container_died": "the container died",
    "unhealthy": "the container was unhealthy", "pool_deleted": "the pool is being deleted",
    "disk": "it used too much disk", "expired": "its time to live had passed",
    "node_lost": "its node was lost", "node_drained": "its node was drained",
}  # fmt: skip


def plain_sentence(event: Event) -> str:
    """An event as a sentence, as plain text."""
    return unescape(strip_tags(sentence(event)))


OUTCOMES = {"released": "", "discarded": ", without a save"}


def _how_released(payload: dict[str, Any]) -> str:
    """The outcome if it is another than usual, and the reason if it is another than a request."""
    outcome = str(payload.get("outcome") or "released")
    reason = REASONS.get(str(payload.get("reason")), "")
    return OUTCOMES.get(outcome, f": {outcome.replace('_', ' ')}") + (f", because {reason}" if reason else "")


def _transfer(payload: dict[str, Any]) -> str:
    """What a run sent, and how large the state is: two figures, because a save sends only what changed."""
    files, whole, sent = payload.get("files"), payload.get("bytes") or 0, payload.get("sentBytes")
    state = f"{files} file{'' if files == 1 else 's'}, {size(whole)}"
    if sent is None or sent == whole:
        return state
    return f"sent {size(sent)} of {state}" if sent else f"nothing to send, {state}"


def _workload_change(payload: dict[str, Any]) -> str:
    if payload.get("deleted"):
        return " was deleted"
    if back_to := payload.get("rolledBackTo"):
        return f" was rolled back to version {back_to}, as version {payload.get('version')}"
    return " was saved"


def _scaled(payload: dict[str, Any]) -> str:
    if "targetSize" in payload:
        return f"was scaled from {payload.get('before')} to {payload['targetSize']}"
    words = {"created": "was created", "deleted": "was deleted", "paused": "was paused", "resumed": "was resumed"}
    words |= {"draining": "is draining"}
    if changed := payload.get("changed"):
        return f"was changed: {', '.join(changed).replace('_', ' ')}"
    return next((text for name, text in words.items() if payload.get(name)), "has changed")
