"""What tenants have used, by month and by day."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers
from rest_framework.response import Response

from boilerhouse.api.base import ApiView
from boilerhouse.api.pagination import paginate
from boilerhouse.api.schema import CURSOR, LIMIT, operation, page_of, query
from boilerhouse.api.serializers import ApiSerializer
from boilerhouse.core import tenant_usage
from boilerhouse.core.errors import FieldError, Invalid
from boilerhouse.core.models import TenantUsage
from tenants import standing

Period = TenantUsage.Period


class UsageOutput(ApiSerializer):
    tenant_id = serializers.CharField()
    start = serializers.DateField(help_text="The day, or the first day of the month, in UTC")
    held_ms = serializers.IntegerField(help_text="How long the tenant had a container")
    cpu_ms = serializers.IntegerField(help_text="CPU time of all cores")
    memory_gb_hours = serializers.FloatField(help_text="Memory in use, in GB of 10^9 bytes, times hours")
    sent_bytes = serializers.IntegerField(help_text="Transferred to sinks")
    received_bytes = serializers.IntegerField(help_text="Transferred from sinks")
    state_bytes = serializers.IntegerField(help_text="Size of the saved state now")


def _render(row: Any) -> dict[str, Any]:
    return {
        "tenantId": row.tenant_id,
        "start": row.start.isoformat(),
        "heldMs": row.held_ms,
        "cpuMs": row.cpu_ns // 1_000_000,
        "memoryGbHours": round(row.memory_gb_hours, 6),
        "sentBytes": row.sent_bytes,
        "receivedBytes": row.received_bytes,
        "stateBytes": row.state_bytes,
    }


MONTH = OpenApiParameter(
    "month",
    {"type": "string", "pattern": "^20[0-9]{2}-(0[1-9]|1[0-2])$"},
    description="Of UTC; the current one by default",
)
BY = OpenApiParameter("by", str, enum=[Period.MONTH.value, Period.DAY.value], description="`month` by default")


def _asked(request: Any) -> QuerySet[TenantUsage]:
    """The rows of the month, or of its days. Raises Invalid."""
    by, text = request.query_params.get("by", Period.MONTH), request.query_params.get("month")
    if by not in Period.values:
        raise _invalid("by", "must be month or day")
    try:
        month = tenant_usage.month_of(text) if text is not None else tenant_usage.this_month()
    except ValueError as error:
        raise _invalid("month", "must have the form 2026-11") from error
    return tenant_usage.of_month(month, Period(by))


def _invalid(name: str, detail: str) -> Invalid:
    return Invalid(FieldError("", f"Query parameter {name}: {detail}", "invalid"))


class UsageView(ApiView):
    admin_only = True
    viewer_may_read = False

    @operation(
        operation_id="listUsage",
        summary="List what tenants used in a month",
        description="One item per tenant, or per tenant and day. Amounts are counted every minute while a claim goes"
        " on; a claim over midnight is divided between the days.",
        parameters=[MONTH, BY, query("tenantId"), LIMIT, CURSOR],
        responses=page_of("UsagePage", UsageOutput),
    )
    def get(self, request: Any) -> Response:
        return paginate(
            request, standing.with_state_bytes(_asked(request)), _render, {"tenantId": "tenant_id"}, key="id"
        )
