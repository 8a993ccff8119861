"""The Django admin: for admins only, with the dashboard's look and words (ADR 77)."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from boilerhouse.core.models import Role
from boilerhouse.core.roles import reaches, role_of

GROUPS: dict[str, tuple[str, ...]] = {
    "Pools and containers": (
        "pools.Pool", "pools.Container", "pools.Workload", "pools.WorkloadVersion", "pools.ImagePull",
        "pools.Tombstone", "pools.LastOutput",
    ),
    "Tenants": ("tenants.Tenant", "tenants.Assignment", "tenants.Death"),
    "Saved state": (
        "syncing.SyncSpec", "syncing.SyncMapping", "syncing.SyncRun", "syncing.SavedState", "syncing.Backup",
        "syncing.MappingRestore", "syncing.SinkPlace", "syncing.SinkProbe",
    ),
    "People and access": (
        "auth.User", "auth.Group", "core.ApiKey", "syncing.Credential", "pools.RegistryCredential",
        "axes.AccessAttempt", "axes.AccessFailureLog", "axes.AccessLog",
    ),
    "Activity": ("core.Event", "core.AuditEntry"),
    "Nodes and processes": (
        "core.Node", "core.Process", "core.FailingStep", "core.QueueHealth", "core.Lease", "core.Deployment",
        "core.Settings",
    ),
}  # fmt: skip
"""What the index shows first, in this order; models that are not here come last."""
REST = "Internals"


class Site(admin.AdminSite):
    site_header = site_title = "Boilerhouse"
    index_title = "Everything in the database"
    site_url = "/"

    def has_permission(self, request: HttpRequest) -> bool:
        return reaches(role_of(request.user), Role.ADMIN)

    def admin_view(self, view: Any, cacheable: bool = False) -> Any:
        inner: Callable[..., Any] = super().admin_view(view, cacheable)

        @wraps(inner)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            if request.user.is_authenticated and not self.has_permission(request):
                return render(request, "403.html", {"least": Role.ADMIN.value}, status=403)
            answer: HttpResponse = inner(request, *args, **kwargs)
            return answer

        return guarded

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        """Models by what they mean to an operator, and not by the package that defines them."""
        apps = super().get_app_list(request, app_label)
        if app_label:
            return apps
        models = {entry["model"]._meta.label: entry for app in apps for entry in app["models"]}
        groups = {name: [models.pop(label) for label in labels if label in models] for name, labels in GROUPS.items()}
        groups[REST] = sorted(models.values(), key=lambda entry: str(entry["name"]))
        index = reverse("admin:index")
        return [
            {
                "name": name, "app_label": f"group-{number}", "app_url": f"{index}#group-{number}", "models": entries,
                "has_module_perms": True,
            }
            for number, (name, entries) in enumerate(groups.items())
            if entries
        ]  # fmt: skip
