"""Template tags: icons, times, sizes, and an event as a sentence."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django import template
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from boilerhouse.core.models import Event

register = template.Library()


@register.simple_tag
def icon(name: str, more: str = "") -> SafeString:
    """An icon of the sprite: ``i-…`` for things, ``s-…`` for the shape of a status."""
    kind = "s" if name.startswith("s-") else "i"
    return format_html('<svg class="{} {}" aria-hidden="true"><use href="#{}"/></svg>', kind, more, name)


@register.filter
def clock(value: datetime) -> SafeString:
    """A time of day with the absolute time as title."""
    absolute = f"{value:%Y-%m-%d %H:%M:%S} UTC"
    shown = f"{value:%H:%M:%S}"
    return format_html('<time datetime="{}" title="{}">{}</time>', value.isoformat(), absolute, shown)


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
    "container.claimed": "ok",
    "container.ready": "ok",
    "container.released": "idle",
    "container.destroyed": "idle",
    "container.failed": "error",
    "container.release_failed": "error",
    "container.unhealthy": "warn",
    "sync.started": "busy",
    "sync.completed": "ok",
    "sync.failed": "error",
    "sync.cancelled": "idle",
    "pool.warning": "warn",
    "pool.recovered": "ok",
    "pool.scaled": "busy",
    "workload.updated": "idle",
}


@register.filter
def tone(event: Event) -> str:
    return TONES.get(event.type, "unknown")


@register.filter
def short(value: str) -> str:
    """The end of an id: time-ordered ids differ there."""
    return f"c-{value[-8:]}" if len(value) == 36 else value


def _mono(value: object) -> SafeString:
    return format_html('<span class="mono">{}</span>', value)


@register.filter
def sentence(event: Event) -> SafeString:
    """What happened, in words."""
    said: dict[str, Any] = event.payload
    tenant, container = _mono(event.tenant_id), _mono(short(event.container_id))
    pool = format_html("{}", event.pool_id)
    match event.type:
        case "container.claimed":
            parts = [
                tenant,
                " claimed ",
                container,
                " in ",
                pool,
                f", {said.get('source')}, {said.get('latencyMs')} ms",
            ]
        case "container.released":
            parts = [tenant, " gave back ", container, f", {said.get('outcome')}"]
        case "container.ready":
            parts = [pool, " has ", container, f" ready after {said.get('durationMs')} ms"]
        case "container.destroyed":
            parts = [container, " of ", pool, " was removed"]
        case "container.failed":
            parts = [container, " of ", pool, f" did not start: {said.get('detail')}"]
        case "container.release_failed":
            parts = ["State of ", tenant, f" is not saved: {said.get('detail')}"]
        case "sync.started":
            parts = ["Restoring " if said.get("direction") == "download" else "Saving ", tenant]
        case "sync.completed":
            verb = "Restored " if said.get("direction") == "download" else "Saved "
            parts = [verb, tenant, f": {said.get('files')} files, {size(said.get('bytes'))}"]
        case "sync.failed" | "sync.cancelled":
            verb = "Restore of " if said.get("direction") == "download" else "Save of "
            parts = [verb, tenant, f" {event.type.partition('.')[2]}: {said.get('detail')}"]
        case "pool.scaled":
            done = "deleted" if said.get("deleted") else "made" if said.get("created") else ""
            parts = [pool, f" was {done}" if done else f" has target size {said.get('targetSize')}"]
        case "pool.warning":
            parts = [pool, f": {said.get('detail')}"]
        case "pool.recovered":
            parts = [pool, " works again"]
        case "workload.updated":
            parts = [
                "Workload ",
                _mono(said.get("workloadId")),
                " was deleted" if said.get("deleted") else " was saved",
            ]
        case _:
            parts = [event.type]
    return format_html_join("", "{}", ((part,) for part in parts))


@register.simple_tag
def oob(is_oob: bool) -> SafeString:
    """Mark a fragment that the socket sends as a replacement of the element with its id."""
    return mark_safe('hx-swap-oob="true"') if is_oob else SafeString("")


@register.filter
def need_parts(what: str) -> tuple[str, str]:
    """What stands before and after the subject of a need."""
    before, _, after = what.partition("{}")
    return before, after
