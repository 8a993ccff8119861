"""The event log, as a list and as a stream."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from typing import Any

from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework import serializers
from rest_framework.exceptions import NotFound
from rest_framework.response import Response

from boilerhouse.api.base import ApiView
from boilerhouse.api.pagination import integer, paginate, values_of
from boilerhouse.api.schema import CURSOR, LIMIT, operation, query, whole
from boilerhouse.api.serializers import ObjectField
from boilerhouse.core import bounds
from boilerhouse.core.bounds import MAX_ID
from boilerhouse.core.errors import FieldError, Invalid
from boilerhouse.core.models import Role
from boilerhouse.process import budgets
from boilerhouse.web import event_stream
from boilerhouse.web.event_stream import EventFilter, Sent, hub, render_event
from boilerhouse.web.streaming import Stream, Writer

FILTERS = {"type": "type", "poolId": "pool_id", "tenantId": "tenant_id", "containerId": "container_id"}
AFTER = whole("after", 0, MAX_ID, "Only events after this id, oldest first.")


class EventOutput(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    type = serializers.CharField()
    payload = ObjectField()
    timestamp = serializers.DateTimeField()


class EventPageOutput(serializers.Serializer[Any]):
    items = EventOutput(many=True)
    nextCursor = serializers.CharField(allow_null=True)
    reset = serializers.BooleanField(
        required=False,
        help_text="With `after`: whether events after it have been deleted. If so, read the current"
        " state again and resume from the newest id.",
    )


def wanted_events(parameters: Any, key: Any) -> EventFilter:
    """The filter that the query requests, restricted to what the key may read. Raises NotFound for another tenant."""
    values = {column: frozenset(values_of(parameters, name)) for name, column in FILTERS.items()}
    if key is not None and key.role == Role.TENANT:
        own = frozenset(key.tenant_ids)
        if values["tenant_id"] - own:
            raise NotFound
        values["tenant_id"] = values["tenant_id"] or own
    return EventFilter(**values, reads_logs=reads_logs(key))


def reads_logs(key: Any) -> bool:
    """Whether the key may read logs: of all containers, or of its own tenants' containers, to which its events are
    restricted."""
    return key is not None and key.role != Role.VIEWER


class EventListView(ApiView):
    tenant_filtered = True

    @operation(
        operation_id="listEvents",
        summary="List events",
        description="Newest first; with `after`, oldest first after that id. Ids are assigned in"
        " commit order, so a client that resumes with its last id as `after` misses"
        " nothing. Keys of role `tenant` see the events of their tenants.",
        parameters=[AFTER, *(query(name) for name in FILTERS), LIMIT, CURSOR],
        responses=EventPageOutput,
    )
    def get(self, request: Any) -> Response:
        rows = wanted_events(request.query_params, request.auth).rows()
        render = partial(render_event, reads_logs=reads_logs(request.auth))
        if "after" not in request.query_params:
            return paginate(request, rows, render, {}, key="id")
        if "cursor" in request.query_params:
            raise Invalid(FieldError("", "Give after or cursor, not both.", "invalid"))
        limit, after = integer(request, "limit", 50, 1, 200), integer(request, "after", 0, 0, MAX_ID)
        events = rows.filter(pk__gt=after).order_by("id")[:limit]
        items = [render(event) for event in events]
        return Response({"items": items, "nextCursor": None, "reset": event_stream.is_lost(after)})


class EventStreamView(ApiView):
    tenant_filtered = True

    @operation(
        operation_id="streamEvents",
        problems={503: "too_many_streams"},
        summary="Follow events",
        description="Server-sent events: all events after `Last-Event-ID` (or `after`), then each"
        " new event as it is committed, without gaps or duplicates. Without either, only"
        " new events. `event: reset` means that events after that id have been deleted:"
        " read the current state again. A comment every 15 seconds keeps the stream"
        " alive. The WebSocket `/ws/events` sends the same events as JSON messages.",
        parameters=[
            AFTER,
            *(query(name) for name in FILTERS),
            OpenApiParameter(
                "Last-Event-ID",
                {"type": "integer", "minimum": 0, "maximum": MAX_ID},
                OpenApiParameter.HEADER,
                description="Like `after`; takes precedence over it.",
            ),
        ],
        responses={(200, "text/event-stream"): OpenApiResponse(OpenApiTypes.STR, description="Server-sent events")},
    )
    def get(self, request: Any) -> HttpResponse:
        filter_, key = wanted_events(request.query_params, request.auth), request.auth
        after = None
        if "after" in request.query_params:
            after = integer(request, "after", 0, 0, MAX_ID)
        if last := request.headers.get("Last-Event-ID"):
            after = bounds.natural(last, MAX_ID)
            if after is None:
                raise Invalid(FieldError("", "Last-Event-ID: must be the id of an event.", "invalid"))
        opened_at = event_stream.newest_id() if after is None else None

        async def run(writer: Writer) -> None:
            await writer.write(b": hello\n\n")
            try:
                async with aclosing(hub.read(after, filter_, key.pk, opened_at=opened_at)) as batches:
                    async for sent in batches:
                        await writer.write(_frame(sent))
            except event_stream.Revoked:
                await writer.write(b'event: revoked\ndata: {"detail":"This key was revoked or has expired."}\n\n')

        stream = Stream(run, "text/event-stream")
        stream.when_closed(budgets.streams.enter(*budgets.owners(key)).release)
        return stream


def _frame(sent: Sent | None) -> bytes:
    if sent is None:
        return b": still here\n\n"
    kind = "event: reset\n" if sent.is_reset else ""
    return f"id: {sent.id}\n{kind}data: {sent.text}\n\n".encode()
