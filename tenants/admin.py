"""Tenants and assignments in the admin; actions go through the services."""

from __future__ import annotations

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from boilerhouse.core import context
from boilerhouse.core.admin import ReadOnlyAdmin
from boilerhouse.core.errors import BoilerhouseError
from syncing.models import Backup
from tenants import backups, releases
from tenants.models import Assignment, Tenant
from tenants.states import AssignmentState


@admin.register(Tenant)
class TenantAdmin(ReadOnlyAdmin):
    list_display = ("id", "generation", "created_at")
    search_fields = ("id",)


@admin.register(Assignment)
class AssignmentAdmin(ReadOnlyAdmin):
    list_display = ("tenant", "pool", "state", "step", "source", "latency_ms", "assigned_at", "outcome", "attempt")
    list_filter = ("state", "pool", "source")
    search_fields = ("tenant__id",)
    exclude = ("secrets",)
    actions = ("retry", "discard")

    @admin.action(description="Retry the save of selected assignments", permissions=["view"])
    def retry(self, request: HttpRequest, queryset: QuerySet[Assignment]) -> None:
        self._each(request, queryset, "retried", discard=False)

    @admin.action(description="Give up the unsaved state of selected assignments (kept 24 h)", permissions=["view"])
    def discard(self, request: HttpRequest, queryset: QuerySet[Assignment]) -> None:
        self._each(request, queryset, "discarded", discard=True)

    def _each(self, request: HttpRequest, queryset: QuerySet[Assignment], verb: str, *, discard: bool) -> None:
        if not request.user.is_superuser:
            self.message_user(request, "Only superusers may do that.", messages.ERROR)
            return
        with context.acting(f"user {request.user.get_username()}"):
            rows = queryset.filter(state=AssignmentState.RELEASE_FAILED)
            done = sum(releases.retry(row, discard=discard) for row in rows)
        self.message_user(request, f"{done} {verb}; {queryset.count() - done} had no failed save.")


@admin.register(Backup)
class BackupAdmin(ReadOnlyAdmin):
    """Backups lie with the sinks; putting one back concerns the tenant, so its admin is here."""

    list_display = ("tenant_id", "spec", "container_path", "files", "bytes", "created_at")
    list_filter = ("spec",)
    search_fields = ("tenant_id",)
    actions = ("put_back",)

    @admin.action(description="Put the files of selected backups back", permissions=["view"])
    def put_back(self, request: HttpRequest, queryset: QuerySet[Backup]) -> None:
        if not request.user.is_superuser:
            self.message_user(request, "Only superusers may do that.", messages.ERROR)
            return
        with context.acting(f"user {request.user.get_username()}"):
            for backup in queryset:
                try:
                    run = backups.restore(backup.tenant_id, backup.pk)
                except BoilerhouseError as error:
                    self.message_user(request, f"{backup.tenant_id}: {error.detail}", messages.ERROR)
                else:
                    self.message_user(request, f"{backup.tenant_id}: run {run.pk} puts {backup.files} files back.")
