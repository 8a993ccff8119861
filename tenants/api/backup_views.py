"""A tenant's backups: what its saves replaced, and putting it back."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.response import Response
from rest_framework.views import APIView

from boilerhouse.core.api.pagination import check_parameters, paginate
from boilerhouse.core.api.schema import CURSOR, LIMIT, page_of, query
from boilerhouse.core.api.serializers import ApiSerializer
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


def render_backup(backup: Backup) -> dict[str, Any]:
    return {
        "id": str(backup.pk),
        "specId": backup.spec_id,
        "containerPath": backup.container_path,
        "location": backup.location,
        "files": backup.files,
        "bytes": backup.bytes,
        "createdAt": backup.created_at,
        "expiresAt": backup.created_at + timedelta(seconds=int(settings.BOILERHOUSE_BACKUP_RETENTION_S)),
    }


class BackupListView(APIView):
    @extend_schema(
        operation_id="listTenantBackups",
        summary="List a tenant's backups",
        description="What its saves overwrote or deleted at the sinks, until `expiresAt`.",
        parameters=[query("specId"), LIMIT, CURSOR],
        responses=page_of("BackupPage", BackupOutput),
    )
    def get(self, request: Any, tenant_id: str) -> Response:
        return paginate(request, backups.of_tenant(tenant_id), render_backup, {"specId": "spec_id"})


class BackupRestoreView(APIView):
    problem_codes = ("409",)

    @extend_schema(
        operation_id="restoreTenantBackup",
        summary="Put a backup's files back",
        description="At the sink, where a save took them away; files that it did not touch stay, and what is replaced"
        " becomes a backup itself. The tenant must hold nothing (409 `held`), and cannot claim until the run has ended"
        " (409 `restoring_backup`).",
        request=None,
        responses={202: RunOutput},
    )
    def post(self, request: Any, tenant_id: str, backup_id: str) -> Response:
        check_parameters(request, ())
        try:
            wanted = UUID(backup_id)
        except ValueError as error:
            raise errors.BackupNotFound(f"There is no backup {backup_id[:60]}.") from error
        return Response(render_run(backups.restore(tenant_id, wanted)), status=202)
