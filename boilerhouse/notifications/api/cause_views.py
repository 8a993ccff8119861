"""Endpoints of what needs attention: the present causes, and mutes of single ones."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from rest_framework.response import Response

from boilerhouse.api.base import ApiView
from boilerhouse.api.schema import operation, page_of
from boilerhouse.core import clock
from boilerhouse.notifications import incidents, mutes
from boilerhouse.notifications.api.cause_fields import CauseOutput, MuteInput, MuteOutput, render_cause, render_mute


class CauseListView(ApiView):
    @operation(
        operation_id="listCauses",
        summary="List what needs attention",
        description="All present causes, as the overview shows them: most urgent first, on one page.",
        responses=page_of("CausePage", CauseOutput),
    )
    def get(self, request: Any) -> Response:
        muted = mutes.muted()
        items = [render_cause(cause, muted.get(incidents.key_of(cause.key))) for cause in incidents.present()]
        return Response({"items": items, "nextCursor": None})


class CauseMuteView(ApiView):
    @operation(
        operation_id="muteCause",
        problems={404: "cause_not_found"},
        summary="Mute a cause",
        description="No notification of it is sent for that long. If it is present then, one is sent. It stays"
        " in the list and on the overview.",
        request=MuteInput,
        responses=MuteOutput,
    )
    def put(self, request: Any, cause_id: str) -> Response:
        until = clock.now() + timedelta(milliseconds=self.read(MuteInput).validated_data["for_ms"])
        return Response(render_mute(mutes.mute(mutes.key_of_id(cause_id), until)))

    @operation(
        operation_id="unmuteCause",
        problems={404: "cause_not_found"},
        summary="End the mute of a cause",
        description="Notifications of it are sent from now on. Does nothing if the cause is not muted.",
        responses={204: None},
    )
    def delete(self, request: Any, cause_id: str) -> Response:
        mutes.unmute(mutes.key_of_id(cause_id))
        return Response(status=204)
