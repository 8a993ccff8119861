"""Template filters for the status labels of objects."""

from __future__ import annotations

from datetime import datetime

from django import template

from boilerhouse.dashboard import badges, charts
from boilerhouse.dashboard.templatetags.ui import duration_ms
from pools.models import Container
from pools.states import ContainerState
from syncing.models import SyncRun, SyncSpec
from syncing.sink_words import explain

register = template.Library()


@register.filter
def container_badge(container: Container) -> badges.Badge:
    return badges.CONTAINER[ContainerState(container.state)]


@register.filter
def health_badge(container: Container) -> badges.Badge:
    return badges.health(container)


@register.filter
def chart_time(value: datetime, clock: str) -> str:
    """A time of a chart's table, as precise as its axis."""
    return value.strftime(charts.CLOCKS[clock])


@register.filter
def why_failed(run: SyncRun) -> str:
    """The cause of a failed run in words; the sink's own message if there are none for it."""
    cause = explain(run.error_code, run.error_detail)
    return run.error_detail if cause.is_unknown else cause.text


@register.filter
def schedule(spec: SyncSpec) -> str:
    """When a spec syncs: ``claim, release, every 15 min``."""
    words = ["claim"] if spec.on_claim else []
    words += ["release"] if spec.on_release else []
    words += [f"every {duration_ms(spec.interval_ms)}"] if spec.interval_ms else []
    return ", ".join(words)
