"""Endpoints of workloads and pools."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rest_framework.response import Response

from boilerhouse.api.base import ApiView
from boilerhouse.api.pagination import boolean, paginate
from boilerhouse.api.schema import CURSOR, LIMIT, flag, operation, page_of, query
from boilerhouse.core.errors import FieldError, Invalid
from boilerhouse.core.ids import check_same_id
from pools import services, tags
from pools.api.serializers import (
    PoolInput,
    PoolOutput,
    PoolUsageOutput,
    ScaleInput,
    WorkloadInput,
    WorkloadOutput,
    WorkloadVersionOutput,
    render_pool,
    render_version,
    render_workload,
)
from pools.models import Pool, PoolUsage, Workload
from pools.services import find_pool, find_workload

POOL_VOLATILE = frozenset({"status"})
WORKLOAD_VOLATILE = frozenset({"warnings", "imageStatus"})
"""These fields depend on the image, which may change."""


class WorkloadListView(ApiView):
    volatile = WORKLOAD_VOLATILE

    @operation(
        operation_id="listWorkloads",
        summary="List workloads",
        parameters=[LIMIT, CURSOR],
        responses=page_of("WorkloadPage", WorkloadOutput),
    )
    def get(self, request: Any) -> Response:
        return paginate(request, Workload.objects.with_latest(), render_workload, {})

    @operation(
        operation_id="createWorkload",
        problems={409: "id_taken", 503: "computing_busy"},
        summary="Register a workload",
        request=WorkloadInput,
        responses={201: WorkloadOutput},
    )
    def post(self, request: Any) -> Response:
        body = self.read(WorkloadInput)
        data = body.validated_data
        workload = services.create_workload(id=data.get("id"), name=data["name"], spec=body.to_spec())
        return self.with_etag(render_workload(find_workload(workload.pk)), 201)


class WorkloadView(ApiView):
    volatile = WORKLOAD_VOLATILE

    @operation(operation_id="getWorkload", summary="Show a workload", responses=WorkloadOutput)
    def get(self, request: Any, workload_id: str) -> Response:
        return self.with_etag(render_workload(find_workload(workload_id)))

    @operation(
        operation_id="replaceWorkload",
        summary="Change a workload",
        description="Takes the full object. A changed spec is a new version, which rolls through the"
        " pools: one new container must become healthy first, and claimed containers stay.",
        request=WorkloadInput,
        responses=WorkloadOutput,
    )
    def put(self, request: Any, workload_id: str) -> Response:
        workload = find_workload(workload_id)
        self.check_match(render_workload(workload))
        body = self.read(WorkloadInput)
        check_same_id(body.validated_data, workload_id)
        services.update_workload(
            workload,
            name=body.validated_data["name"],
            spec=body.to_spec(),
            check=lambda locked: self.check_match(render_workload(locked)),
        )
        return self.with_etag(render_workload(find_workload(workload_id)))

    @operation(
        operation_id="deleteWorkload",
        problems={409: "workload_in_use"},
        summary="Delete a workload that no pool uses",
        responses={204: None},
    )
    def delete(self, request: Any, workload_id: str) -> Response:
        services.delete_workload(find_workload(workload_id))
        return Response(status=204)


class WorkloadRefreshView(ApiView):
    @operation(
        operation_id="refreshWorkload",
        problems={409: "fixed_image"},
        summary="Roll to the image that the tag names now",
        description="A worker asks the registry. A different image becomes a new version, which"
        " rolls through the pools: one new container must become healthy first, and"
        " claimed containers stay. If it does not become healthy, the old version keeps"
        " serving. `imageStatus` and a `workload.updated` event (`refreshed`: `rolls`,"
        " `unchanged`, `failed`) give the result.",
        request=None,
        responses={202: WorkloadOutput},
    )
    def post(self, request: Any, workload_id: str) -> Response:
        tags.ask_refresh(workload_id)
        return Response(render_workload(find_workload(workload_id)), status=202)


class WorkloadVersionListView(ApiView):
    @operation(
        operation_id="listWorkloadVersions",
        summary="List a workload's versions",
        parameters=[LIMIT, CURSOR],
        responses=page_of("WorkloadVersionPage", WorkloadVersionOutput),
    )
    def get(self, request: Any, workload_id: str) -> Response:
        return paginate(request, find_workload(workload_id).versions.all(), render_version, {})


class PoolListView(ApiView):
    volatile = POOL_VOLATILE

    @operation(
        operation_id="listPools",
        summary="List pools",
        parameters=[query("workloadId"), LIMIT, CURSOR],
        responses=page_of("PoolPage", PoolOutput),
    )
    def get(self, request: Any) -> Response:
        return paginate(request, Pool.objects.with_counts(), render_pool, {"workloadId": "workload_id"})

    @operation(
        operation_id="createPool",
        problems={409: "id_taken"},
        summary="Create a pool",
        request=PoolInput,
        responses={201: PoolOutput},
    )
    def post(self, request: Any) -> Response:
        body = self.read(PoolInput)
        data = dict(body.validated_data)
        workload = Workload.objects.filter(pk=data.pop("workload_id")).first()
        if workload is None:
            raise Invalid(FieldError("/workloadId", "No such workload.", "not_found"))
        pool = services.create_pool(id=data.pop("id", None), name=data.pop("name", None), workload=workload, **data)
        return self.with_etag(render_pool(find_pool(pool.pk)), 201)


class PoolView(ApiView):
    volatile = POOL_VOLATILE

    @operation(operation_id="getPool", summary="Show a pool and its status", responses=PoolOutput)
    def get(self, request: Any, pool_id: str) -> Response:
        return self.with_etag(render_pool(find_pool(pool_id)))

    @operation(
        operation_id="replacePool",
        summary="Change a pool",
        description="Takes the full object; `workloadId` cannot change. The containers are adjusted;"
        " a changed network is rolled out.",
        request=PoolInput,
        responses=PoolOutput,
    )
    def put(self, request: Any, pool_id: str) -> Response:
        pool = find_pool(pool_id)
        self.check_match(render_pool(pool))
        body = self.read(PoolInput)
        data = dict(body.validated_data)
        check_same_id(data, pool_id)
        if data.pop("workload_id") != pool.workload_id:
            raise Invalid(
                FieldError("/workloadId", f"The workload of a pool cannot change (it is {pool.workload_id}).", "fixed")
            )
        data.pop("id", None)
        services.update_pool(
            pool_id,
            name=data.pop("name", None),
            check=lambda _locked: self.check_match(render_pool(find_pool(pool_id))),
            **data,
        )
        return self.with_etag(render_pool(find_pool(pool_id)))

    @operation(
        operation_id="deletePool",
        problems={409: "pool_in_use"},
        summary="Drain and delete a pool",
        parameters=[flag("force", "Release tenants that hold containers, with a save.")],
        responses={202: None},
    )
    def delete(self, request: Any, pool_id: str) -> Response:
        services.start_deleting(pool_id, force=boolean(request, "force"))
        return Response(status=202)


class PoolScaleView(ApiView):
    @operation(
        operation_id="scalePool",
        problems={409: "below_claimed"},
        summary="Scale a pool",
        description="Sets `targetSize`; the containers are adjusted. A size outside [minSize,"
        " maxSize] is 422; a size below the number of claimed containers is 409.",
        request=ScaleInput,
        responses={202: PoolOutput},
    )
    def post(self, request: Any, pool_id: str) -> Response:
        body = self.read(ScaleInput)
        services.scale(pool_id, body.validated_data["target_size"])
        return Response(render_pool(find_pool(pool_id)), status=202)


def _switch(operation_id: str, summary: str, description: str, act: Callable[[str], None]) -> type[ApiView]:
    """A view whose POST, without a body, performs one operation on the pool and returns it."""

    class PoolSwitchView(ApiView):
        @operation(
            operation_id=operation_id, summary=summary, description=description, request=None,
            responses={202: PoolOutput},
        )  # fmt: skip
        def post(self, request: Any, pool_id: str) -> Response:
            act(pool_id)
            return Response(render_pool(find_pool(pool_id)), status=202)

    return PoolSwitchView


PoolPauseView = _switch(
    "pausePool", "Pause a pool", "Starts no containers. Warm ones can still be claimed.", services.pause
)
PoolResumeView = _switch(
    "resumePool",
    "Resume a pool",
    "Ends a pause or a drain. Also retries immediately what had failed, including a version whose roll stopped.",
    services.resume,
)
PoolDrainView = _switch(
    "drainPool", "Drain a pool", "Refuses new claims (409 `draining`) and removes warm containers.", services.drain
)


class PoolUsageView(ApiView):
    @operation(
        operation_id="getPoolUsage",
        summary="Show a pool's recent usage",
        description="Samples, newest first, about four per minute, kept for days.",
        parameters=[LIMIT, CURSOR],
        responses=page_of("PoolUsagePage", PoolUsageOutput),
    )
    def get(self, request: Any, pool_id: str) -> Response:
        rows = PoolUsage.objects.filter(pool=find_pool(pool_id))
        return paginate(request, rows, lambda row: dict(PoolUsageOutput(row).data), {}, key="at")
