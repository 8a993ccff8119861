"""Views of the core: events and the schema's authentication."""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.response import Response
from rest_framework.views import APIView

from boilerhouse.core.api.pagination import check_parameters, integer, paginate
from boilerhouse.core.api.schema import CURSOR, LIMIT, page_of, query
from boilerhouse.core.models import Event

MAX_EVENT_ID = 2**63 - 1


class KeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "boilerhouse.core.api.authentication.ApiKeyAuthentication"
    name = "apiKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "bearerFormat": "bh_…"}


class EventOutput(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    type = serializers.CharField()
    payload = serializers.JSONField()
    timestamp = serializers.DateTimeField()


def render_event(event: Event) -> dict[str, Any]:
    named = {"poolId": event.pool_id, "containerId": event.container_id, "tenantId": event.tenant_id}
    payload = {name: value for name, value in named.items() if value}
    payload |= {"actor": event.actor, "requestId": event.request_id, **event.payload}
    timestamp = event.created_at.isoformat().replace("+00:00", "Z")
    return {"id": event.id, "type": event.type, "payload": payload, "timestamp": timestamp}


class EventListView(APIView):
    @extend_schema(
        operation_id="listEvents",
        summary="List events",
        description="Newest first; oldest first after a given id when `after` is given. Ids commit in order.",
        parameters=[
            OpenApiParameter("after", int, description="Only events with a greater id, oldest first."),
            query("type"),
            query("poolId"),
            query("tenantId"),
            query("containerId"),
            LIMIT,
            CURSOR,
        ],
        responses=page_of("EventPage", EventOutput),
    )
    def get(self, request: Any) -> Response:
        filters = {"type": "type", "poolId": "pool_id", "tenantId": "tenant_id", "containerId": "container_id"}
        if "after" not in request.query_params:
            return paginate(request, Event.objects.all(), render_event, filters, key="id")
        check_parameters(request, {*filters, "after", "limit"})
        limit = integer(request, "limit", 50, 1, 200)
        rows = Event.objects.filter(pk__gt=integer(request, "after", 0, 0, MAX_EVENT_ID)).order_by("id")
        for name, column in filters.items():
            if values := request.query_params.getlist(name):
                rows = rows.filter(**{f"{column}__in": values})
        return Response({"items": [render_event(event) for event in rows[:limit]], "nextCursor": None})
