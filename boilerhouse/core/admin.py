"""Read-only views of what services own."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from boilerhouse.core.models import (
    ApiKey,
    AuditEntry,
    Deployment,
    Event,
    IdempotencyRecord,
    Lease,
    Process,
    QueueHealth,
    Settings,
)


class ReadOnlyAdmin(admin.ModelAdmin[Any]):
    """Rows that services write: looked at here, never changed."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Event)
class EventAdmin(ReadOnlyAdmin):
    list_display = ("id", "created_at", "type", "pool_id", "tenant_id", "container_id", "actor")
    list_filter = ("type",)
    search_fields = ("pool_id", "tenant_id", "container_id", "actor")
    show_full_result_count = False


@admin.register(ApiKey)
class ApiKeyAdmin(ReadOnlyAdmin):
    list_display = ("id", "name", "role", "created_at", "last_used_at", "expires_at", "revoked_at")
    list_filter = ("role",)
    exclude = ("key_hash",)


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin):
    list_display = ("at", "actor", "action", "object_id", "request_id")
    list_filter = ("kind", "action")
    search_fields = ("object_id", "actor", "request_id")
    date_hierarchy = "at"
    show_full_result_count = False


@admin.register(IdempotencyRecord)
class IdempotencyRecordAdmin(ReadOnlyAdmin):
    list_display = ("id", "created_at", "owner")
    exclude = ("answer",)


@admin.register(Process)
class ProcessAdmin(ReadOnlyAdmin):
    list_display = ("id", "kind", "name", "node", "pid", "started_at", "heartbeat_at")
    list_filter = ("kind",)


admin.site.register(Deployment, ReadOnlyAdmin)
admin.site.register(Lease, ReadOnlyAdmin)
admin.site.register(Settings, ReadOnlyAdmin)
admin.site.site_header = "Boilerhouse"
admin.site.site_title = "Boilerhouse"
admin.site.index_title = "Everything in the database"
admin.site.register(QueueHealth, ReadOnlyAdmin)
