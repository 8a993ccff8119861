"""Template filters of events."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import tzinfo

from django import template

from boilerhouse.core.models import Event
from boilerhouse.dashboard import event_words
from boilerhouse.dashboard.time_ranges import Day, days

register = template.Library()


@register.filter
def label(event: Event) -> str:
    """The event's type in words."""
    return event_words.label(event.type)


@register.filter
def by_day(events: Iterable[Event], zone: tzinfo) -> list[Day]:
    return list(days(events, "created_at", zone))


@register.filter
def facts(event: Event) -> list[tuple[str, str]]:
    return list(event_words.facts(event))
