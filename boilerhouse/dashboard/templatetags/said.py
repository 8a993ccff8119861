"""Template filters for the status labels of objects."""

from __future__ import annotations

from django import template

from boilerhouse.dashboard import tones
from boilerhouse.dashboard.templatetags.ui import duration_ms
from pools.models import Container
from pools.states import ContainerState
from syncing.models import SyncSpec

register = template.Library()


@register.filter
def container_said(container: Container) -> tones.Said:
    return tones.CONTAINER[ContainerState(container.state)]


@register.filter
def health_said(container: Container) -> tones.Said:
    return tones.health(container)


@register.filter
def moments(spec: SyncSpec) -> str:
    """When a spec syncs: ``claim, release, every 15 min``."""
    words = ["claim"] if spec.on_claim else []
    words += ["release"] if spec.on_release else []
    words += [f"every {duration_ms(spec.interval_ms)}"] if spec.interval_ms else []
    return ", ".join(words)
