"""Admin pages of models that belong to the whole deployment."""

from __future__ import annotations

from django.contrib import admin

from boilerhouse.core import api_keys
from boilerhouse.core.admin_actions import ReadOnlyAdmin, service_action
from boilerhouse.core.models import (
    ApiKey,
    AuditEntry,
    CertificateAuthority,
    Deployment,
    Event,
    FailingStep,
    IdempotencyRecord,
    Lease,
    Node,
    NodeToken,
    Process,
    QueueHealth,
    Role,
    Settings,
    TenantUsage,
)


@admin.register(Event)
class EventAdmin(ReadOnlyAdmin):
    list_display = ("id", "created_at", "type", "pool_id", "tenant_id", "container_id", "actor")
    list_filter = ("type",)
    search_fields = ("pool_id", "tenant_id", "container_id", "actor", "request_id")
    date_hierarchy = "created_at"
    exclude = ("private",)


@admin.register(ApiKey)
class ApiKeyAdmin(ReadOnlyAdmin):
    list_display = ("id", "name", "role", "created_at", "last_used_at", "expires_at", "revoked_at")
    list_filter = ("role", ("revoked_at", admin.EmptyFieldListFilter))
    search_fields = ("id", "name")
    exclude = ("key_hash",)
    actions = (
        service_action(
            "revoke", "Revoke selected API keys", lambda row: api_keys.revoke_key(row.pk), least=Role.ADMIN,
            confirm="Open streams of these keys end immediately. The keys cannot be used again.",
        ),
    )  # fmt: skip


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin):
    list_display = ("at", "actor", "action", "object_id", "request_id")
    list_filter = ("kind", "action")
    search_fields = ("object_id", "actor", "request_id")
    date_hierarchy = "at"


@admin.register(IdempotencyRecord)
class IdempotencyRecordAdmin(ReadOnlyAdmin):
    list_display = ("id", "created_at", "owner")
    search_fields = ("id",)
    exclude = ("answer",)


@admin.register(TenantUsage)
class TenantUsageAdmin(ReadOnlyAdmin):
    list_display = (
        "tenant_id",
        "period",
        "start",
        "held_ms",
        "cpu_ns",
        "memory_byte_s",
        "sent_bytes",
        "received_bytes",
    )
    list_filter = ("period",)
    search_fields = ("tenant_id",)
    date_hierarchy = "start"


@admin.register(Node)
class NodeAdmin(ReadOnlyAdmin):
    list_display = ("id", "name", "state", "heartbeat_at", "cordoned_at", "created_at")
    list_filter = ("state", ("cordoned_at", admin.EmptyFieldListFilter))
    search_fields = ("id", "name")


@admin.register(NodeToken)
class NodeTokenAdmin(ReadOnlyAdmin):
    list_display = ("id", "created_at", "created_by", "expires_at", "used_at", "used_by")
    list_filter = (("used_at", admin.EmptyFieldListFilter),)
    search_fields = ("id", "created_by", "used_by")
    exclude = ("token_hash",)


@admin.register(CertificateAuthority)
class CertificateAuthorityAdmin(ReadOnlyAdmin):
    list_display = ("id", "created_at")
    exclude = ("key",)


@admin.register(Process)
class ProcessAdmin(ReadOnlyAdmin):
    list_display = ("id", "kind", "name", "node", "pid", "started_at", "heartbeat_at")
    list_filter = ("kind", "node")
    search_fields = ("id", "name", "node__id")


@admin.register(QueueHealth)
class QueueHealthAdmin(ReadOnlyAdmin):
    list_display = ("name", "served_at")


@admin.register(FailingStep)
class FailingStepAdmin(ReadOnlyAdmin):
    list_display = ("name", "error", "detail", "since")
    search_fields = ("name",)


@admin.register(Lease)
class LeaseAdmin(ReadOnlyAdmin):
    list_display = ("name", "holder", "expires_at")


@admin.register(Deployment)
class DeploymentAdmin(ReadOnlyAdmin):
    list_display = ("deployment_id",)


@admin.register(Settings)
class SettingsAdmin(ReadOnlyAdmin):
    list_display = ("id", "version", "updated_at")
