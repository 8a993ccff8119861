"""Endpoints of sync specs and runs."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.response import Response

from boilerhouse.api.base import ApiView
from boilerhouse.api.pagination import boolean, paginate
from boilerhouse.api.schema import CURSOR, LIMIT, flag, operation, page_of, query
from boilerhouse.api.serializers import ApiSerializer
from boilerhouse.core.errors import FieldError, Invalid
from boilerhouse.core.ids import check_same_id
from pools.models import Pool
from syncing import services
from syncing.api.serializers import RunOutput, SyncSpecInput, SyncSpecOutput, render_run, render_spec
from syncing.models import SinkProbe, SyncRun, SyncSpec
from syncing.services import find_spec

FORCE = flag("force", "Proceed even if assigned tenants would no longer be saved.")
SPEC_VOLATILE = frozenset({"sinkHealth"})


class SyncSpecListView(ApiView):
    lane = "slow"
    volatile = SPEC_VOLATILE

    @operation(
        operation_id="listSyncSpecs",
        summary="List sync specs",
        parameters=[query("poolId"), LIMIT, CURSOR],
        responses=page_of("SyncSpecPage", SyncSpecOutput),
    )
    def get(self, request: Any) -> Response:
        rows = SyncSpec.objects.prefetch_related("mappings")
        return paginate(request, rows, render_spec, {"poolId": "pool_id"})

    @operation(
        operation_id="createSyncSpec",
        problems={409: "id_taken"},
        summary="Create a sync spec",
        description="Probes the sink. If the sink is unreachable, the spec is still created and"
        " `sinkHealth` reports it.",
        request=SyncSpecInput,
        responses={201: SyncSpecOutput},
    )
    def post(self, request: Any) -> Response:
        body = self.read(SyncSpecInput)
        data = body.validated_data
        pool = Pool.objects.select_related("workload").filter(pk=data["pool_id"]).first()
        if pool is None:
            raise Invalid(FieldError("/poolId", "No such pool.", "not_found"))
        spec = services.create_spec(id=data.get("id"), name=data.get("name"), pool=pool, **body.parts())
        self.show_later(lambda: self.with_etag(render_spec(find_spec(spec.pk)), 201))  # with the result of the probe
        return self.with_etag(render_spec(find_spec(spec.pk)), 201)


class SyncSpecView(ApiView):
    lane = "slow"
    volatile = SPEC_VOLATILE

    @operation(operation_id="getSyncSpec", summary="Show a sync spec", responses=SyncSpecOutput)
    def get(self, request: Any, spec_id: str) -> Response:
        return self.with_etag(render_spec(find_spec(spec_id)))

    @operation(
        operation_id="replaceSyncSpec",
        problems={409: "coverage_held"},
        summary="Change a sync spec",
        description="Takes the full object; `poolId` cannot change. `secretAccessKey` may be left"
        " out while `accessKeyId`, `endpoint` and `bucket` stay the same. 409 if assigned"
        " tenants would no longer be saved, unless forced.",
        parameters=[FORCE],
        request=SyncSpecInput,
        responses=SyncSpecOutput,
    )
    def put(self, request: Any, spec_id: str) -> Response:
        spec = find_spec(spec_id)
        self.check_match(render_spec(spec))
        body = self.read(SyncSpecInput, stored=spec)
        check_same_id(body.validated_data, spec_id)
        if body.validated_data["pool_id"] != spec.pool_id:
            raise Invalid(
                FieldError("/poolId", f"The pool of a sync spec cannot change (it is {spec.pool_id}).", "fixed")
            )
        name, force = body.validated_data.get("name"), boolean(request, "force")
        services.update_spec(
            spec,
            name=name,
            force=force,
            check=lambda locked: self.check_match(render_spec(locked)),
            **body.parts(),
        )
        self.show_later(lambda: self.with_etag(render_spec(find_spec(spec_id))))  # with the result of the probe
        return self.with_etag(render_spec(find_spec(spec_id)))

    @operation(
        operation_id="deleteSyncSpec",
        problems={409: "coverage_held"},
        summary="Delete a sync spec",
        description="409 while tenants hold containers that the spec covers, unless forced. Saved"
        " state stays at the sink.",
        parameters=[FORCE],
        responses={204: None},
    )
    def delete(self, request: Any, spec_id: str) -> Response:
        spec = find_spec(spec_id)
        services.delete_spec(spec, force=boolean(request, "force"))
        return Response(status=204)


class SyncRunListView(ApiView):
    @operation(
        operation_id="listSyncRuns",
        summary="List sync runs",
        parameters=[query(n) for n in ("specId", "tenantId", "state", "trigger", "direction")] + [LIMIT, CURSOR],
        responses=page_of("SyncRunPage", RunOutput),
    )
    def get(self, request: Any) -> Response:
        filters = {"specId": "spec_id", "tenantId": "tenant_id"}
        filters |= {name: name for name in ("state", "trigger", "direction")}
        return paginate(request, SyncRun.objects.all(), render_run, filters)


class SinkProbeOutput(ApiSerializer):
    at = serializers.DateTimeField()
    state = serializers.ChoiceField(["healthy", "unhealthy"])
    code = serializers.CharField(allow_null=True)
    detail = serializers.CharField(allow_null=True)
    duration_ms = serializers.IntegerField()


def render_probe(probe: SinkProbe) -> dict[str, Any]:
    return {
        "at": probe.at,
        "state": "healthy" if probe.is_healthy else "unhealthy",
        "code": probe.code or None,
        "detail": probe.detail or None,
        "durationMs": probe.duration_ms,
    }


class SinkProbeListView(ApiView):
    @operation(
        operation_id="listSinkProbes",
        summary="List the probes of the spec's sink",
        description="The history of the sink's health, newest first.",
        parameters=[LIMIT, CURSOR],
        responses=page_of("SinkProbePage", SinkProbeOutput),
    )
    def get(self, request: Any, spec_id: str) -> Response:
        return paginate(request, find_spec(spec_id).probes.all(), render_probe, {}, key="at")
