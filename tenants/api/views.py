"""Claim, release, status and sync of tenants; containers with who holds them."""

from __future__ import annotations

import base64
import time
from typing import Any
from uuid import UUID

from django.db.models import F, FilteredRelation, Q, QuerySet
from django.http import HttpResponse
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.response import Response
from rest_framework.views import APIView

from boilerhouse.core.api.pagination import check_parameters, integer, paginate
from boilerhouse.core.api.schema import CURSOR, LIMIT, page_of, query
from boilerhouse.core.asgi_handler import check_room
from boilerhouse.core.waiting import Waiting
from pools import lifecycle
from pools.api.serializers import ContainerOutput, ExecInput, ExecOutput, render_container
from pools.errors import ContainerNotFound, NotClaimed
from pools.models import Container
from syncing.api.serializers import RunsOutput, render_run
from tenants import claims, idle, line, releases, syncs, validation
from tenants.api.serializers import (
    ClaimInput,
    ClaimOutput,
    HeldOutput,
    ReleaseInput,
    ReleaseOutput,
    StatusOutput,
    SyncInput,
    render_claim,
    render_held,
)
from tenants.errors import Releasing
from tenants.models import Assignment
from tenants.states import LIVE, AssignmentState, Source
from tenants.status import tenant_status

MAX_TIMEOUT_MS = 600_000
DEFAULT_CLAIM_MS, DEFAULT_RELEASE_MS = 30_000, 60_000

TIMEOUT = OpenApiParameter("timeoutMs", int, description="How long to wait, 1 to 600000.")


def _timeout(request: Any, default: int) -> int:
    check_parameters(request, {"timeoutMs"})
    return integer(request, "timeoutMs", default, 1, MAX_TIMEOUT_MS)


def _wait(request: Any, key: Any, check: Any, until: float, state: Any) -> HttpResponse:
    """Give the thread back and come again; without an event loop wait right here."""
    waiting = Waiting(key, check, until)
    waiting.state = state  # type: ignore[attr-defined]
    if not hasattr(request._request, "resumed"):
        waiting.block()
    return waiting


class ClaimView(APIView):
    problem_codes = ("409", "502", "503", "504")

    @extend_schema(
        operation_id="claimContainer",
        summary="Claim a container for the tenant",
        description="Answers when the tenant's state, config and secrets are in the container. Claiming again returns"
        " the same container, untouched.",
        parameters=[TIMEOUT],
        request=ClaimInput,
        responses={201: ClaimOutput, 200: ClaimOutput},
    )
    def post(self, request: Any, tenant_id: str) -> HttpResponse:
        resumed = getattr(request._request, "resumed", None)
        if resumed is None:
            arrived = time.time()
            timeout_ms = _timeout(request, DEFAULT_CLAIM_MS)
            body = ClaimInput(data=request.data)
            body.is_valid(raise_exception=True)
            claim = validation.Claim(tenant_id=tenant_id, timeout_ms=timeout_ms, **body.validated_data)
            check_room(request._request)
            begun, until = claims.begin(claim), arrived + timeout_ms / 1000
        else:
            begun, arrived, until = resumed.state
        while (assignment := claims.settle(begun, until)) is None:
            waiting = _wait(request, begun.assignment_id, line.settled, until, (begun, arrived, until))
            if hasattr(request._request, "resumed"):
                return waiting
        latency = max(1, round((time.time() - arrived) * 1000))
        if begun.is_new:
            return Response(render_claim(assignment, assignment.source, latency), status=201)
        return Response(render_claim(assignment, Source.EXISTING, latency, begun.ignored), status=200)


class ReleaseView(APIView):
    problem_codes = ("409", "502", "503")

    @extend_schema(
        operation_id="releaseContainer",
        summary="Release the tenant's container",
        description="200: state safe and container gone. 202: not yet. 502 `save_failed`: the state is kept on the node"
        " and the save is retried.",
        parameters=[TIMEOUT],
        request=ReleaseInput,
        responses={200: ReleaseOutput, 202: ReleaseOutput},
    )
    def post(self, request: Any, tenant_id: str) -> HttpResponse:
        resumed = getattr(request._request, "resumed", None)
        if resumed is None:
            until = time.time() + _timeout(request, DEFAULT_RELEASE_MS) / 1000
            body = ReleaseInput(data=request.data if request.body else {})
            body.is_valid(raise_exception=True)
            check_room(request._request)
            release = releases.begin(tenant_id, **body.validated_data)
        else:
            release, until = resumed.state
        while not releases.settle(release):
            if time.time() >= until:
                return Response({"tenantId": tenant_id, "state": AssignmentState.RELEASING}, status=202)
            waiting = _wait(request, release.assignment_id, releases.settled, until, (release, until))
            if hasattr(request._request, "resumed"):
                return waiting
        return Response({"tenantId": tenant_id, "state": None})


class StatusView(APIView):
    @extend_schema(operation_id="getTenantStatus", summary="Show what is known of a tenant", responses=StatusOutput)
    def get(self, request: Any, tenant_id: str) -> Response:
        check_parameters(request, ())
        return Response(tenant_status(validation.check_tenant_id(tenant_id)))


class SyncView(APIView):
    problem_codes = ("409",)

    @extend_schema(
        operation_id="syncTenant",
        summary="Sync the tenant's state now",
        description="`inward` overwrites what differs and deletes nothing; `both` is outward, then inward.",
        request=SyncInput,
        responses={202: RunsOutput},
    )
    def post(self, request: Any, tenant_id: str) -> Response:
        body = SyncInput(data=request.data)
        body.is_valid(raise_exception=True)
        runs = syncs.begin(tenant_id, body.validated_data["direction"])
        return Response({"runs": [render_run(run) for run in runs]}, status=202)


class HeartbeatView(APIView):
    @extend_schema(
        operation_id="heartbeat",
        summary="Say that the tenant is active",
        description="Moves the deadline of a pool's `idleTimeoutMs`. 404 when the tenant holds nothing.",
        request=None,
        responses={204: None},
    )
    def post(self, request: Any, tenant_id: str) -> Response:
        check_parameters(request, ())
        idle.heartbeat(validation.check_tenant_id(tenant_id))
        return Response(status=204)


class TenantListView(APIView):
    @extend_schema(
        operation_id="listTenants",
        summary="List tenants that hold something",
        parameters=[query("poolId"), query("state"), LIMIT, CURSOR],
        responses=page_of("TenantPage", HeldOutput),
    )
    def get(self, request: Any) -> Response:
        return paginate(request, Assignment.objects.live(), render_held, {"poolId": "pool_id", "state": "state"})


# Containers -----------------------------------------------------------------------------------------


def _containers() -> QuerySet[Container]:
    held = FilteredRelation("assignments", condition=Q(assignments__state__in=list(LIVE)))
    rows = Container.objects.select_related("version").annotate(held=held)
    return rows.annotate(tenant=F("held__tenant_id"))


def _render(container: Container) -> dict[str, Any]:
    return render_container(container, container.tenant)  # type: ignore[attr-defined]


def _find(container_id: str) -> Container:
    try:
        found = _containers().filter(pk=UUID(container_id)).first()
    except ValueError:
        found = None
    if found is None:
        raise ContainerNotFound(f"There is no container {container_id}.")
    return found


class ContainerListView(APIView):
    @extend_schema(
        operation_id="listContainers",
        summary="List containers",
        parameters=[query("poolId"), query("state"), query("tenantId"), LIMIT, CURSOR],
        responses=page_of("ContainerPage", ContainerOutput),
    )
    def get(self, request: Any) -> Response:
        filters = {"poolId": "pool_id", "state": "state", "tenantId": "tenant"}
        return paginate(request, _containers(), _render, filters)


class PoolContainerListView(APIView):
    @extend_schema(
        operation_id="listPoolContainers",
        summary="List a pool's containers",
        parameters=[query("state"), query("tenantId"), LIMIT, CURSOR],
        responses=page_of("PoolContainerPage", ContainerOutput),
    )
    def get(self, request: Any, pool_id: str) -> Response:
        from pools.api.views import find_pool

        rows = _containers().filter(pool=find_pool(pool_id))
        return paginate(request, rows, _render, {"state": "state", "tenantId": "tenant"})


class ContainerView(APIView):
    @extend_schema(operation_id="getContainer", summary="Show a container", responses=ContainerOutput)
    def get(self, request: Any, container_id: str) -> Response:
        return Response(_render(_find(container_id)))


class ExecView(APIView):
    problem_codes = ("409", "502", "503", "504")

    @extend_schema(
        operation_id="execInContainer",
        summary="Run a command in a claimed container",
        description="Waits for its end. Output beyond 1 MiB is cut and `truncated` says so.",
        request=ExecInput,
        responses=ExecOutput,
    )
    def post(self, request: Any, container_id: str) -> Response:
        body = ExecInput(data=request.data)
        body.is_valid(raise_exception=True)
        container = _find(container_id)
        held = Assignment.objects.filter(container_ref=container.pk)
        if not held.filter(state=AssignmentState.ASSIGNED).exists():
            if held.filter(state=AssignmentState.RELEASING).exists():
                raise Releasing
            raise NotClaimed
        idle.note_activity(container.pk)
        done = lifecycle.exec_in(container, tuple(body.validated_data["command"]), body.validated_data["timeout_ms"])
        encode = _text if body.validated_data["encoding"] == "utf-8" else _base64
        return Response(
            {
                "exitCode": done.exit_code,
                "stdout": encode(done.stdout),
                "stderr": encode(done.stderr),
                "truncated": done.truncated,
                "durationMs": done.duration_ms,
            }
        )


def _text(data: bytes) -> str:
    return data.decode("utf-8", errors="replace")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
