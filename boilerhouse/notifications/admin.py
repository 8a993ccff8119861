"""Admin pages of notifications; secrets are never shown."""

from __future__ import annotations

from django.contrib import admin

from boilerhouse.core.admin_actions import ReadOnlyAdmin
from boilerhouse.notifications.models import Delivery, Incident, Mute, Target


@admin.register(Target)
class TargetAdmin(ReadOnlyAdmin):
    page = "notification"
    list_display = ("id", "name", "kind", "destination", "is_on", "muted_until", "failing_since", "disabled_at")
    list_filter = ("kind", "is_on", ("disabled_at", admin.EmptyFieldListFilter))
    search_fields = ("id", "name")
    exclude = ("secret",)


@admin.register(Delivery)
class DeliveryAdmin(ReadOnlyAdmin):
    page, page_argument = "notification", "target_id"
    list_display = ("created_at", "target", "moment", "state", "attempts", "status_code", "detail")
    list_filter = ("state", "moment", "target")
    search_fields = ("target__id", "detail")
    date_hierarchy = "created_at"


@admin.register(Incident)
class IncidentAdmin(ReadOnlyAdmin):
    list_display = ("key", "kind", "severity", "first_seen_at", "opened_at", "resolved_at")
    list_filter = ("kind", "severity")
    search_fields = ("key", "title")


@admin.register(Mute)
class MuteAdmin(ReadOnlyAdmin):
    list_display = ("key", "until", "created_at")
    search_fields = ("key",)
