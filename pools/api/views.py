"""Workloads and pools."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.response import Response
from rest_framework.views import APIView

from boilerhouse.core.api.pagination import check_parameters, paginate
from boilerhouse.core.api.schema import CURSOR, LIMIT, page_of, query
from boilerhouse.core.errors import FieldError, Invalid
from pools import services
from pools.api.serializers import (
    PoolInput,
    PoolOutput,
    ScaleInput,
    WorkloadInput,
    WorkloadOutput,
    render_pool,
    render_workload,
)
from pools.errors import PoolNotFound, WorkloadNotFound
from pools.models import Pool, Workload


def find_workload(workload_id: str) -> Workload:
    workload = Workload.objects.filter(pk=workload_id).first()
    if workload is None:
        raise WorkloadNotFound(f"There is no workload {workload_id}.")
    return workload


def find_pool(pool_id: str) -> Pool:
    pool = Pool.objects.with_counts().filter(pk=pool_id).first()
    if pool is None:
        raise PoolNotFound(f"There is no pool {pool_id}.")
    return pool


def boolean(request: Any, name: str) -> bool:
    value = request.query_params.get(name, "false")
    if value not in ("true", "false"):
        raise Invalid(FieldError("", f"Query parameter {name}: must be true or false", "invalid"))
    return bool(value == "true")


class WorkloadListView(APIView):
    problem_codes = ("409",)

    @extend_schema(
        operation_id="listWorkloads",
        summary="List workloads",
        parameters=[LIMIT, CURSOR],
        responses=page_of("WorkloadPage", WorkloadOutput),
    )
    def get(self, request: Any) -> Response:
        return paginate(request, Workload.objects.all(), render_workload, {})

    @extend_schema(
        operation_id="createWorkload",
        summary="Register a workload",
        request=WorkloadInput,
        responses={201: WorkloadOutput},
    )
    def post(self, request: Any) -> Response:
        body = WorkloadInput(data=request.data)
        body.is_valid(raise_exception=True)
        data = body.validated_data
        workload = services.create_workload(id=data.get("id"), name=data["name"], spec=body.to_spec())
        return Response(render_workload(workload), status=201)


class WorkloadView(APIView):
    problem_codes = ("409",)

    @extend_schema(operation_id="getWorkload", summary="Show a workload", responses=WorkloadOutput)
    def get(self, request: Any, workload_id: str) -> Response:
        return Response(render_workload(find_workload(workload_id)))

    @extend_schema(operation_id="deleteWorkload", summary="Delete a workload that no pool uses", responses={204: None})
    def delete(self, request: Any, workload_id: str) -> Response:
        services.delete_workload(find_workload(workload_id))
        return Response(status=204)


class PoolListView(APIView):
    problem_codes = ("409",)

    @extend_schema(
        operation_id="listPools",
        summary="List pools",
        parameters=[query("workloadId"), LIMIT, CURSOR],
        responses=page_of("PoolPage", PoolOutput),
    )
    def get(self, request: Any) -> Response:
        return paginate(request, Pool.objects.with_counts(), render_pool, {"workloadId": "workload_id"})

    @extend_schema(operation_id="createPool", summary="Create a pool", request=PoolInput, responses={201: PoolOutput})
    def post(self, request: Any) -> Response:
        body = PoolInput(data=request.data)
        body.is_valid(raise_exception=True)
        data = dict(body.validated_data)
        workload = Workload.objects.filter(pk=data.pop("workload_id")).first()
        if workload is None:
            raise Invalid(FieldError("/workloadId", "There is no such workload.", "not_found"))
        pool = services.create_pool(id=data.pop("id", None), name=data.pop("name", None), workload=workload, **data)
        return Response(render_pool(find_pool(pool.pk)), status=201)


class PoolView(APIView):
    problem_codes = ("409",)

    @extend_schema(operation_id="getPool", summary="Show a pool and its status", responses=PoolOutput)
    def get(self, request: Any, pool_id: str) -> Response:
        return Response(render_pool(find_pool(pool_id)))

    @extend_schema(
        operation_id="deletePool",
        summary="Drain and delete a pool",
        parameters=[OpenApiParameter("force", bool, description="Release tenants that hold containers, with save.")],
        responses={202: None},
    )
    def delete(self, request: Any, pool_id: str) -> Response:
        check_parameters(request, {"force"})
        services.start_deleting(pool_id, force=boolean(request, "force"))
        return Response(status=202)


class PoolScaleView(APIView):
    problem_codes = ("409",)

    @extend_schema(
        operation_id="scalePool",
        summary="Scale a pool",
        description="Sets targetSize; containers follow. Outside [minSize, maxSize] 422, below what is claimed 409.",
        request=ScaleInput,
        responses={202: PoolOutput},
    )
    def post(self, request: Any, pool_id: str) -> Response:
        body = ScaleInput(data=request.data)
        body.is_valid(raise_exception=True)
        services.scale(pool_id, body.validated_data["target_size"])
        return Response(render_pool(find_pool(pool_id)), status=202)
