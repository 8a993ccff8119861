"""A tenant's backups: what its saves replaced, and how to restore it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from rest_framework import serializers
from rest_framework.response import Response

from boilerhouse.api.base import ApiView
from boilerhouse.api.pagination import paginate
from boilerhouse.api.schema import CURSOR, LIMIT, operation, page_of, query
from boilerhouse.api.serializers import ApiSerializer
from boilerhouse.core import deployment_settings
from syncing.api.serializers import RunOutput, render_run
from syncing.models import Backup
from tenants import backups, errors


class BackupOutput(ApiSerializer):
    id = serializers.UUIDField()
    spec_id = serializers.CharField()
    container_path = serializers.CharField()
    location = serializers.CharField()
    files = serializers.IntegerField()
    bytes = serializers.IntegerField()
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField()


def render_backup(backup: Backup, kept_for: timedelta) -> dict[str, Any]:
    return {
        "id": str(backup.pk),
        "specId": backup.spec_id,
        "containerPath": backup.container_path,
        "location": backup.location,
        "files": backup.files,
        "bytes": backup.bytes,
        "createdAt": backup.created_at,
        "expiresAt": backup.created_at + kept_for,
    }


class BackupListView(ApiView):
    @operation(
        operation_id="listTenantBackups",
        summary="List a tenant's backups",
        description="Files that the tenant's saves overwrote or deleted at the sinks, kept until `expiresAt`.",
        parameters=[query("specId"), LIMIT, CURSOR],
        responses=page_of("BackupPage", BackupOutput),
    )
    def get(self, request: Any, tenant_id: str) -> Response:
        kept_for = timedelta(seconds=deployment_settings.current().retention_s["backups"])
        rows = backups.of_tenant(tenant_id)
        return paginate(request, rows, lambda row: render_backup(row, kept_for), {"specId": "spec_id"})


class BackupRestoreView(ApiView):
    @operation(
        operation_id="restoreTenantBackup",
        problems={409: "held restoring_backup erasing"},
        summary="Restore a backup",
        description="Restores the files at the sink. Files that the save did not touch stay, and"
        " replaced files become a backup themselves. The tenant must hold nothing (409"
        " `held`) and cannot claim until the run has ended (409 `restoring_backup`).",
        request=None,
        responses={202: RunOutput},
    )
    def post(self, request: Any, tenant_id: str, backup_id: str) -> Response:
        try:
            pk = UUID(backup_id)
        except ValueError as error:
            raise errors.BackupNotFound(f"No backup {backup_id[:60]}.") from error
        return Response(render_run(backups.restore(tenant_id, pk)), status=202)
