"""Template filters of amounts that tenants use."""

from __future__ import annotations

from django import template

register = template.Library()


@register.filter
def hours(value: float) -> str:
    """``0``, ``< 0.01``, ``12.40``, ``1,230``: an amount in hours of something."""
    if not value:
        return "0"
    if value < 0.01:
        return "< 0.01"
    return f"{value:.2f}" if value < 1000 else f"{value:,.0f}"
