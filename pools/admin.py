"""Admin pages of workloads, pools and samples; services own their state."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest

from boilerhouse.core.admin_actions import ReadOnlyAdmin, service_action
from boilerhouse.core.events import recording
from boilerhouse.queues.tasks import enqueue
from pools import services, tags
from pools.models import (
    ContainerUsage,
    HostCounter,
    HostLease,
    ImagePull,
    LastOutput,
    NetworkReport,
    Pool,
    PoolUsage,
    RegistryCredential,
    ResolvedName,
    Tombstone,
    Workload,
    WorkloadVersion,
)


def _refill(pool: Pool) -> None:
    with recording():
        enqueue("pool", "pools.tasks.refill", pool.pk)


@admin.register(Workload)
class WorkloadAdmin(ReadOnlyAdmin):
    page = "workload"
    list_display = ("id", "name", "version_count", "pool_count", "created_at", "updated_at")
    search_fields = ("id", "name")
    actions = (
        service_action(
            "refresh", "Refresh the images of selected workloads", lambda row: tags.ask_refresh(row.pk),
            confirm="A worker checks what the tags name now. Pools roll to a new image once it is healthy.",
        ),
    )  # fmt: skip

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        counts = {"n_versions": Count("versions", distinct=True), "n_pools": Count("pools", distinct=True)}
        rows: QuerySet[Any] = super().get_queryset(request).annotate(**counts)
        return rows

    @admin.display(description="versions", ordering="n_versions")
    def version_count(self, row: Any) -> int:
        return int(row.n_versions)

    @admin.display(description="pools", ordering="n_pools")
    def pool_count(self, row: Any) -> int:
        return int(row.n_pools)


@admin.register(WorkloadVersion)
class WorkloadVersionAdmin(ReadOnlyAdmin):
    page, page_argument = "workload", "workload_id"
    list_display = ("workload", "number", "image_digest", "manifest_digest", "tag_digest", "tag_asked_at", "created_at")
    list_filter = ("workload",)
    search_fields = ("workload__id", "image_digest", "manifest_digest")


@admin.register(RegistryCredential)
class RegistryCredentialAdmin(ReadOnlyAdmin):
    page = "registry-credential"
    list_display = ("id", "name", "registry", "created_at", "updated_at")
    search_fields = ("id", "name", "registry")
    exclude = ("secret",)


@admin.register(ImagePull)
class ImagePullAdmin(ReadOnlyAdmin):
    list_display = ("image", "node", "state", "asked_at", "started_at", "finished_at", "fault", "error")
    list_filter = ("state", "fault")
    search_fields = ("image", "error")
    date_hierarchy = "asked_at"


@admin.register(Pool)
class PoolAdmin(ReadOnlyAdmin):
    page = "pool"
    list_display = (
        "id", "workload", "min_size", "max_size", "target_size", "is_paused", "is_draining", "trouble", "last_error",
    )  # fmt: skip
    list_filter = ("trouble", "is_paused", "is_draining", "workload")
    search_fields = ("id", "name", "last_error")
    actions = (
        service_action("refill", "Refill selected pools", _refill),
        service_action("pause", "Pause refill of selected pools", lambda row: services.pause(row.pk)),
        service_action("resume", "Resume selected pools", lambda row: services.resume(row.pk)),
        service_action(
            "drain", "Drain selected pools", lambda row: services.drain(row.pk),
            confirm="New claims are refused and idle containers removed. Tenants keep theirs until released.",
        ),
    )  # fmt: skip


@admin.register(Tombstone)
class TombstoneAdmin(ReadOnlyAdmin):
    page, page_argument = "container", "id"
    list_display = ("id", "pool_id", "tenant_id", "node_id", "exit_code", "created_at", "at")
    list_filter = ("fault",)
    search_fields = ("id", "pool_id", "tenant_id")
    date_hierarchy = "at"


@admin.register(LastOutput)
class LastOutputAdmin(ReadOnlyAdmin):
    list_display = ("tombstone_id", "size", "at")
    search_fields = ("tombstone__id", "tombstone__pool_id", "tombstone__tenant_id")
    exclude = ("log",)


@admin.register(HostLease)
class HostLeaseAdmin(ReadOnlyAdmin):
    page, page_argument = "container", "container_id"
    list_display = ("resource", "container_id", "released_at")
    list_filter = (("released_at", admin.EmptyFieldListFilter),)
    search_fields = ("resource", "container_id")


@admin.register(HostCounter)
class HostCounterAdmin(ReadOnlyAdmin):
    list_display = ("name", "position")
    search_fields = ("name",)


@admin.register(NetworkReport)
class NetworkReportAdmin(ReadOnlyAdmin):
    list_display = ("node", "problem", "changed_at")
    search_fields = ("node", "problem")


@admin.register(ResolvedName)
class ResolvedNameAdmin(ReadOnlyAdmin):
    list_display = ("name", "node", "addresses", "error", "next_at")
    search_fields = ("name",)


@admin.register(ContainerUsage)
class ContainerUsageAdmin(ReadOnlyAdmin):
    page, page_argument = "container", "container_id"
    list_display = ("container_id", "at", "cpu_ns", "memory_bytes", "pids")
    search_fields = ("container_id",)
    date_hierarchy = "at"


@admin.register(PoolUsage)
class PoolUsageAdmin(ReadOnlyAdmin):
    page, page_argument = "pool", "pool_id"
    list_display = ("pool", "at", "idle", "claimed", "waiting", "desired_size", "cpu_cores", "memory_bytes")
    list_filter = ("pool",)
    date_hierarchy = "at"
