"""Specs and runs in the admin; secrets are never shown."""

from __future__ import annotations

from django.contrib import admin

from boilerhouse.core.admin import ReadOnlyAdmin
from syncing.models import Credential, MappingRestore, SavedState, SinkProbe, SyncMapping, SyncRun, SyncSpec


@admin.register(Credential)
class CredentialAdmin(ReadOnlyAdmin):
    list_display = ("id", "name", "created_at")
    exclude = ("secret",)


@admin.register(SyncSpec)
class SyncSpecAdmin(ReadOnlyAdmin):
    list_display = ("id", "pool", "on_claim", "on_release", "interval_ms", "updated_at")
    list_filter = ("pool",)
    exclude = ("sink_secrets",)


@admin.register(SyncMapping)
class SyncMappingAdmin(ReadOnlyAdmin):
    list_display = ("spec", "position", "container_path", "pattern", "sink_path", "direction", "mode")


@admin.register(SyncRun)
class SyncRunAdmin(ReadOnlyAdmin):
    list_display = (
        "id",
        "tenant_id",
        "spec",
        "direction",
        "trigger",
        "state",
        "error_code",
        "started_at",
        "finished_at",
    )
    list_filter = ("state", "direction", "trigger", "spec")
    search_fields = ("tenant_id", "error_detail")


@admin.register(SavedState)
class SavedStateAdmin(ReadOnlyAdmin):
    list_display = ("tenant_id", "location", "files", "bytes", "generation", "saved_at")
    search_fields = ("tenant_id", "location")


@admin.register(SinkProbe)
class SinkProbeAdmin(ReadOnlyAdmin):
    list_display = ("spec", "at", "is_healthy", "code", "duration_ms")
    list_filter = ("is_healthy", "spec")


admin.site.register(MappingRestore, ReadOnlyAdmin)
