"""Context of every page's shell."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from boilerhouse.attention import save_causes
from boilerhouse.core.models import Role
from boilerhouse.core.roles import role_of
from boilerhouse.dashboard.access import may
from boilerhouse.dashboard.page_sections import is_refresh
from boilerhouse.dashboard.zones import zone_of
from pools.models import Pool
from tenants.models import Assignment
from tenants.states import AssignmentState

THEMES = ("auto", "light", "dark")
TIMES = ("utc", "local")

BESIDE = {"settings": ("nodes/",), "tenants": ("usage/", "releases/")}
"""Pages that stand below an entry of the navigation, and not below its URL."""


@dataclass(frozen=True, slots=True)
class NavItem:
    label: str
    icon: str
    url: str
    is_current: bool
    is_optional: bool = False
    count: int | None = None
    alerts: int = 0


def shell(request: HttpRequest) -> dict[str, Any]:
    theme = request.COOKIES.get("theme", "auto")
    times = request.COOKIES.get("times", "utc")
    values: dict[str, Any] = {
        "version": settings.VERSION,
        "node": socket.gethostname(),
        "theme": theme if theme in THEMES else "auto",
        "themes": THEMES,
        "times": times if times in TIMES else "utc",
        "reader_zone": zone_of(request),
        "now": timezone.now(),
    }
    if request.path_info.startswith(("/admin/", "/api/", "/login/")) or not hasattr(request, "user"):
        return values
    role = getattr(request, "role", None) or role_of(request.user)
    if role is None:
        return values
    request.role = role  # type: ignore[attr-defined]
    rights = {"may_operate": may(request, Role.OPERATOR), "may_admin": may(request, Role.ADMIN)}
    layout = "refreshed.html" if is_refresh(request) else "shell.html"
    return {**values, **rights, "nav": _nav(request.path), "role_name": role.value, "layout": layout}


def _nav(path: str) -> list[NavItem]:
    counts = dict.fromkeys(AssignmentState.values, 0)
    for state in Assignment.objects.live().values_list("state", flat=True):
        counts[state] += 1
    pools = list(Pool.objects.values_list("last_error", flat=True))

    def item(label: str, icon: str, name: str, **more: Any) -> NavItem:
        url = reverse(name)
        below = (url, *(f"{reverse('overview')}{part}" for part in BESIDE.get(name, ())))
        is_current = path == url if name == "overview" else path.startswith(below)
        return NavItem(label, icon, url, is_current, **more)

    return [
        item("Overview", "i-gauge", "overview"),
        item("Pools", "i-boxes", "pools", count=len(pools), alerts=sum(1 for error in pools if error)),
        item("Containers", "i-container", "containers", is_optional=True),
        item("Tenants", "i-users", "tenants", count=counts["assigned"], alerts=counts["release_failed"]),
        item("Sync", "i-arrow-down-up", "sync", alerts=save_causes.alerts()),
        item("Workloads", "i-blocks", "workloads", is_optional=True),
        item("Activity", "i-activity", "activity", is_optional=True),
        item("Settings", "i-settings", "settings", is_optional=True),
    ]
