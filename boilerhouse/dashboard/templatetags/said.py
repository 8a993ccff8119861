"""Template filters: what a thing's state is called on pages."""

from __future__ import annotations

from django import template

from boilerhouse.dashboard import tones
from pools.models import Container
from pools.states import ContainerState

register = template.Library()


@register.filter
def container_said(container: Container) -> tones.Said:
    return tones.CONTAINER[ContainerState(container.state)]


@register.filter
def health_said(container: Container) -> tones.Said:
    return tones.health(container)
