"""Admin pages of tenants and their assignments.

Containers, sync specs, runs and backups are here too, because their actions concern tenants, whose services are in a
higher layer.
"""

from __future__ import annotations

from django.contrib import admin

from boilerhouse.core.admin_actions import ReadOnlyAdmin, service_action
from boilerhouse.core.events import recording
from boilerhouse.queues.tasks import enqueue
from pools.models import Container
from syncing.models import Backup, SyncRun, SyncSpec
from tenants import backups, releases, removals, syncs
from tenants.errors import NotAssigned
from tenants.models import Assignment, Death, Tenant
from tenants.states import AssignmentState

SAVED_FIRST = "Each container is stopped, its state is saved, and it is removed. Its tenant loses the connection now."


def _failed_save(row: Assignment, *, discard: bool) -> None:
    if row.state != AssignmentState.RELEASE_FAILED or not releases.retry(row, discard=discard):
        raise NotAssigned("The assignment has no failed save.")


def _probe(row: SyncSpec) -> None:
    with recording():
        enqueue("sync", "tenants.tasks.probe_sink", row.pk)


@admin.register(Tenant)
class TenantAdmin(ReadOnlyAdmin):
    page = "tenant"
    list_display = ("id", "generation", "created_at")
    search_fields = ("id",)
    date_hierarchy = "created_at"
    actions = (service_action("sync", "Save selected tenants now", lambda row: syncs.begin(row.pk, "outward")),)


@admin.register(Assignment)
class AssignmentAdmin(ReadOnlyAdmin):
    page, page_argument = "tenant", "tenant_id"
    list_display = ("tenant", "pool", "state", "step", "source", "latency_ms", "assigned_at", "outcome", "attempt")
    list_filter = ("state", "outcome", "source", "pool")
    search_fields = ("tenant__id", "outcome_detail")
    date_hierarchy = "created_at"
    exclude = ("secrets",)
    actions = (
        service_action(
            "release", "Save and release selected assignments", lambda row: releases.begin(row.tenant_id),
            confirm=SAVED_FIRST,
        ),
        service_action(
            "retry", "Retry the failed save of selected assignments", lambda row: _failed_save(row, discard=False)
        ),
        service_action(
            "discard", "Give up the unsaved state of selected assignments", lambda row: _failed_save(row, discard=True),
            confirm="Changes since the last complete save are discarded. This node keeps them for a while.",
        ),
    )  # fmt: skip


@admin.register(Container)
class ContainerAdmin(ReadOnlyAdmin):
    page = "container"
    list_display = ("id", "pool", "version", "state", "health", "address", "uid", "state_changed_at", "error")
    list_filter = ("state", "health", "fault", "pool")
    search_fields = ("id", "runtime_id", "address", "error")
    actions = (
        service_action(
            "remove", "Save, release and remove selected containers",
            lambda row: removals.begin(row.pk, discard=False), confirm=SAVED_FIRST,
        ),
    )  # fmt: skip


@admin.register(SyncSpec)
class SyncSpecAdmin(ReadOnlyAdmin):
    page = "sync-spec"
    list_display = ("id", "pool", "on_claim", "on_release", "interval_ms", "updated_at")
    list_filter = ("on_claim", "on_release", "pool")
    search_fields = ("id", "name")
    exclude = ("sink_secrets",)
    actions = (
        service_action("sync", "Save all assigned tenants now", lambda row: syncs.trigger(row, "outward", None)),
        service_action("probe", "Probe the sinks of selected specs", _probe),
    )


@admin.register(Death)
class DeathAdmin(ReadOnlyAdmin):
    page, page_argument = "tenant", "tenant_id"
    list_display = ("tenant_id", "container_ref", "at", "exit_code", "detail")
    search_fields = ("tenant_id", "container_ref")
    exclude = ("words", "log")


@admin.register(SyncRun)
class SyncRunAdmin(ReadOnlyAdmin):
    page = "run"
    list_display = (
        "id", "tenant_id", "spec", "direction", "trigger", "state", "error_code", "started_at", "finished_at",
    )  # fmt: skip
    list_filter = ("state", "direction", "trigger", "error_code", "spec")
    search_fields = ("tenant_id", "error_detail")
    date_hierarchy = "created_at"
    actions = (service_action("cancel", "Cancel selected runs", lambda row: syncs.cancel(row.pk)),)


@admin.register(Backup)
class BackupAdmin(ReadOnlyAdmin):
    page, page_argument = "tenant", "tenant_id"
    list_display = ("tenant_id", "spec", "container_path", "files", "bytes", "created_at")
    list_filter = ("spec",)
    search_fields = ("tenant_id", "location")
    date_hierarchy = "created_at"
    actions = (
        service_action(
            "put_back", "Restore the files of selected backups", lambda row: backups.restore(row.tenant_id, row.pk),
            confirm="They replace the files at the sink now; replaced files become a backup themselves.",
        ),
    )  # fmt: skip
