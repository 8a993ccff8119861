"""Admin pages of sync specs, runs and saves; secrets are never shown."""

from __future__ import annotations

from django.contrib import admin

from boilerhouse.core.admin_actions import ReadOnlyAdmin
from syncing.models import Credential, MappingRestore, SavedState, SinkPlace, SinkProbe, SyncMapping


@admin.register(Credential)
class CredentialAdmin(ReadOnlyAdmin):
    page = "credential"
    list_display = ("id", "name", "created_at")
    search_fields = ("id", "name")
    exclude = ("secret",)


@admin.register(SyncMapping)
class SyncMappingAdmin(ReadOnlyAdmin):
    page, page_argument = "sync-spec", "spec_id"
    list_display = ("spec", "position", "container_path", "pattern", "sink_path", "direction", "mode")
    list_filter = ("direction", "mode", "spec")
    search_fields = ("spec__id", "container_path", "sink_path")


@admin.register(SavedState)
class SavedStateAdmin(ReadOnlyAdmin):
    page, page_argument = "tenant", "tenant_id"
    list_display = ("tenant_id", "location", "files", "bytes", "generation", "saved_at", "forgotten_at")
    list_filter = (("forgotten_at", admin.EmptyFieldListFilter),)
    search_fields = ("tenant_id", "location")
    date_hierarchy = "saved_at"


@admin.register(SinkPlace)
class SinkPlaceAdmin(ReadOnlyAdmin):
    list_display = ("name", "place_id", "seen_at")
    search_fields = ("name", "place_id")


@admin.register(SinkProbe)
class SinkProbeAdmin(ReadOnlyAdmin):
    page, page_argument = "sync-spec", "spec_id"
    list_display = ("spec", "at", "is_healthy", "code", "duration_ms")
    list_filter = ("is_healthy", "spec")
    search_fields = ("spec__id", "detail")
    date_hierarchy = "at"


@admin.register(MappingRestore)
class MappingRestoreAdmin(ReadOnlyAdmin):
    page, page_argument = "tenant", "tenant_id"
    list_display = ("tenant_id", "generation", "mapping", "location", "files", "bytes")
    search_fields = ("tenant_id", "location")
