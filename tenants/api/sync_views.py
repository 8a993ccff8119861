"""Operations of sync specs and runs that concern tenants: trigger, status, one run, cancel, a tenant's runs."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from rest_framework import serializers
from rest_framework.response import Response

from boilerhouse.api.base import ApiView
from boilerhouse.api.pagination import paginate
from boilerhouse.api.schema import CURSOR, LIMIT, operation, page_of, query
from boilerhouse.api.serializers import ApiSerializer, LineField
from syncing.api.serializers import RunOutput, RunsOutput, SinkHealthOutput, render_run
from syncing.models import SyncRun
from syncing.services import find_spec
from syncing.states import Direction, SyncRunState, Trigger
from tenants import errors, syncs, upkeep, validation
from tenants.spec_status import spec_status


class TriggerInput(ApiSerializer):
    direction = serializers.ChoiceField(["outward", "inward", "both"], default="outward")
    tenant_id = LineField(required=False, allow_null=True, max_length=128)


class BriefRunOutput(ApiSerializer):
    id = serializers.UUIDField()
    tenant_id = serializers.CharField()
    direction = serializers.ChoiceField(Direction.choices)
    trigger = serializers.ChoiceField(Trigger.choices)
    state = serializers.ChoiceField(SyncRunState.choices)
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)


class CoverageOutput(ApiSerializer):
    covered = serializers.IntegerField()
    stale = serializers.IntegerField()


class SpecErrorOutput(ApiSerializer):
    at = serializers.DateTimeField()
    run_id = serializers.UUIDField()
    tenant_id = serializers.CharField()
    code = serializers.CharField()
    detail = serializers.CharField()


class SpecStatusOutput(ApiSerializer):
    spec_id = serializers.CharField()
    sink_health = SinkHealthOutput()
    last_run = BriefRunOutput(allow_null=True)
    last_success_at = serializers.DateTimeField(allow_null=True)
    running = serializers.IntegerField()
    pending = serializers.IntegerField()
    failed24h = serializers.IntegerField()
    bytes24h = serializers.IntegerField()
    tenants = CoverageOutput()
    errors = SpecErrorOutput(many=True)  # type: ignore[assignment]


class SpecTriggerView(ApiView):
    @operation(
        operation_id="triggerSyncSpec",
        is_body_optional=True,
        problems={409: "not_assigned"},
        summary="Run this sync spec now",
        description="For one tenant, or for all tenants that hold a container of the spec's pool.",
        request=TriggerInput,
        responses={202: RunsOutput},
    )
    def post(self, request: Any, spec_id: str) -> Response:
        body = self.read(TriggerInput)
        data = body.validated_data
        runs = syncs.trigger(find_spec(spec_id), data["direction"], data.get("tenant_id"))
        return Response({"runs": [render_run(run) for run in runs]}, status=202)


class SpecProbeView(ApiView):
    lane = "slow"

    @operation(
        operation_id="probeSyncSpec",
        acts="Writes to the sink, and reads and deletes it again. Its result is stored and can be read.",
        summary="Probe the spec's sink now",
        description="Saves and restores a few small files for a tenant id that cannot exist, and"
        " deletes them: healthy means that a save would work. If the sink is healthy"
        " again, failed saves are retried immediately.",
        request=None,
        responses=SinkHealthOutput,
    )
    def post(self, request: Any, spec_id: str) -> Response:
        spec = find_spec(spec_id)
        upkeep.probe_sink(spec.pk)
        return Response(find_spec(spec_id).sink_health)


class SpecStatusView(ApiView):
    @operation(operation_id="getSyncSpecStatus", summary="Show the status of a sync spec", responses=SpecStatusOutput)
    def get(self, request: Any, spec_id: str) -> Response:
        return Response(spec_status(find_spec(spec_id)))


def _run_id(value: str) -> UUID:
    try:
        return UUID(value)
    except ValueError as error:
        raise errors.RunNotFound(f"No sync run {value}.") from error


class SyncRunView(ApiView):
    @operation(operation_id="getSyncRun", summary="Show a sync run", responses=RunOutput)
    def get(self, request: Any, run_id: str) -> Response:
        run = SyncRun.objects.filter(pk=_run_id(run_id)).first()
        if run is None:
            raise errors.RunNotFound(f"No sync run {run_id}.")
        return Response(render_run(run))


class SyncRunCancelView(ApiView):
    @operation(
        operation_id="cancelSyncRun",
        problems={409: "not_cancellable"},
        summary="Cancel a sync run",
        description="A queued run ends at once, a running one within seconds. The next save or"
        " restore undoes what the run had begun. 409 `not_cancellable` for runs that have"
        " ended and for runs of claims and releases.",
        request=None,
        responses={202: RunOutput},
    )
    def post(self, request: Any, run_id: str) -> Response:
        return Response(render_run(syncs.cancel(_run_id(run_id))), status=202)


class TenantRunListView(ApiView):
    @operation(
        operation_id="listTenantRuns",
        summary="List a tenant's sync runs",
        parameters=[query(n) for n in ("specId", "state", "trigger", "direction")] + [LIMIT, CURSOR],
        responses=page_of("TenantRunPage", RunOutput),
    )
    def get(self, request: Any, tenant_id: str) -> Response:
        rows = SyncRun.objects.filter(tenant_id=validation.check_tenant_id(tenant_id))
        filters = {"specId": "spec_id"} | {name: name for name in ("state", "trigger", "direction")}
        return paginate(request, rows, render_run, filters)
