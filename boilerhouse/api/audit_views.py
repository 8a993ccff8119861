"""The audit log."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.response import Response

from boilerhouse.api.base import ApiView
from boilerhouse.api.pagination import paginate
from boilerhouse.api.schema import CURSOR, LIMIT, operation, page_of, query
from boilerhouse.api.serializers import ApiSerializer, ObjectField
from boilerhouse.core.models import AuditEntry


class AuditOutput(ApiSerializer):
    id = serializers.UUIDField()
    at = serializers.DateTimeField()
    actor = serializers.CharField(help_text="`key <name>`, `user <name>`, `command <name>` or `system`")
    request_id = serializers.CharField(allow_blank=True)
    action = serializers.CharField(help_text="`<kind>.<verb>`, e.g. `pool.scale`")
    kind = serializers.CharField()
    object_id = serializers.CharField()
    before = ObjectField(allow_null=True, help_text="The fields that a change altered. Never a secret.")
    after = ObjectField(allow_null=True)


def render_entry(entry: AuditEntry) -> dict[str, Any]:
    body: dict[str, Any] = AuditOutput(entry).data
    return body


class AuditListView(ApiView):
    admin_only = True
    viewer_may_read = False

    @operation(
        operation_id="listAudit",
        summary="List audit entries",
        parameters=[*(query(name) for name in ("actor", "action", "kind", "objectId", "requestId")), LIMIT, CURSOR],
        responses=page_of("AuditPage", AuditOutput),
    )
    def get(self, request: Any) -> Response:
        filters = {"objectId": "object_id", "requestId": "request_id"}
        filters |= {name: name for name in ("actor", "action", "kind")}
        return paginate(request, AuditEntry.objects.all(), render_entry, filters, key="at")
