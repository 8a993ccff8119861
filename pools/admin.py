"""Workloads, pools and containers in the admin; services own their state."""

from __future__ import annotations

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from boilerhouse.core.admin import ReadOnlyAdmin
from boilerhouse.core.tasks import enqueue
from pools.models import Container, ContainerUsage, HostLease, Pool, PoolUsage, Workload, WorkloadVersion


@admin.register(Workload)
class WorkloadAdmin(ReadOnlyAdmin):
    list_display = ("id", "name", "created_at", "updated_at")
    search_fields = ("id", "name")


@admin.register(WorkloadVersion)
class WorkloadVersionAdmin(ReadOnlyAdmin):
    list_display = ("workload", "number", "image_digest", "created_at")
    list_filter = ("workload",)


@admin.register(Pool)
class PoolAdmin(ReadOnlyAdmin):
    list_display = ("id", "workload", "min_size", "max_size", "target_size", "is_paused", "is_draining", "last_error")
    list_filter = ("is_paused", "is_draining", "workload")
    search_fields = ("id", "name")
    actions = ("refill",)

    @admin.action(description="Refill selected pools", permissions=["view"])
    def refill(self, request: HttpRequest, queryset: QuerySet[Pool]) -> None:
        if not request.user.is_superuser:
            self.message_user(request, "Only superusers may refill pools.", messages.ERROR)
            return
        for pool in queryset:
            enqueue("pool", "pools.tasks.refill", pool.pk)
        self.message_user(request, f"{queryset.count()} pools are being refilled.")


@admin.register(Container)
class ContainerAdmin(ReadOnlyAdmin):
    list_display = ("id", "pool", "state", "health", "address", "uid", "state_changed_at", "error")
    list_filter = ("state", "health", "pool")
    search_fields = ("id", "address")


admin.site.register(HostLease, ReadOnlyAdmin)
admin.site.register([ContainerUsage, PoolUsage], ReadOnlyAdmin)
