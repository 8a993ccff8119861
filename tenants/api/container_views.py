"""Containers with their tenants; commands and logs in claimed containers, by container and by tenant."""

from __future__ import annotations

import base64
import binascii
import threading
import time
from collections.abc import Callable
from contextlib import aclosing, suppress
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.conf import settings
from django.db.models import F, FilteredRelation, Q, QuerySet
from django.http import HttpResponse
from django.utils.dateparse import parse_datetime
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework.response import Response

from boilerhouse.api.base import ApiView
from boilerhouse.api.pagination import boolean, integer, paginate
from boilerhouse.api.schema import CURSOR, LIMIT, flag, operation, page_of, query, whole
from boilerhouse.core import api_keys
from boilerhouse.core.errors import FieldError, Invalid
from boilerhouse.process import budgets
from boilerhouse.web.problems import from_error
from boilerhouse.web.rendering import AsciiRenderer
from boilerhouse.web.streaming import Stream, Writer, from_thread
from pools.api.serializers import ContainerOutput, ExecInput, ExecOutput, ExecProblem, render_container
from pools.errors import ContainerMissing, ContainerNotFound, EngineUnavailable, ExecTimedOut
from pools.models import Container
from pools.runtime.base import Executed
from pools.services import find_pool
from tenants import activity, deaths, removals
from tenants.api.waiting import TIMEOUT, Awaited, WaitingView, patience, timeout_ms
from tenants.errors import NotAssigned, Releasing
from tenants.gateway import public_urls
from tenants.models import Death
from tenants.states import LIVE

DEFAULT_TAIL, MAX_TAIL = 100, 10_000
DEFAULT_REMOVE_MS = 60_000
LOOK_AT_KEY_EVERY_S = 0.5
RUNS = "The command has run. Its result is a document that is built before it is answered."


def _containers() -> QuerySet[Container]:
    held = FilteredRelation("assignments", condition=Q(assignments__state__in=list(LIVE)))
    rows = Container.objects.select_related("version").annotate(held=held)
    return rows.annotate(tenant=F("held__tenant_id"), host_label=F("held__tenant__host_label"))


def _render(container: Container) -> dict[str, Any]:
    body = render_container(container, container.tenant)  # type: ignore[attr-defined]
    return {**body, "endpoints": public_urls.added(body["endpoints"], container.host_label)}  # type: ignore[attr-defined]


def _id(container_id: str) -> UUID:
    try:
        return UUID(container_id)
    except ValueError:
        raise ContainerNotFound(f"No container {container_id[:60]}.") from None


def _find(container_id: UUID) -> Container:
    container = _containers().filter(pk=container_id).first()
    if container is None:
        raise ContainerNotFound(f"No container {container_id}.")
    return container


class ContainerListView(ApiView):
    @operation(
        operation_id="listContainers",
        summary="List containers",
        parameters=[query("poolId"), query("state"), query("tenantId"), LIMIT, CURSOR],
        responses=page_of("ContainerPage", ContainerOutput),
    )
    def get(self, request: Any) -> Response:
        filters = {"poolId": "pool_id", "state": "state", "tenantId": "tenant"}
        return paginate(request, _containers(), _render, filters)


class PoolContainerListView(ApiView):
    @operation(
        operation_id="listPoolContainers",
        summary="List a pool's containers",
        parameters=[query("state"), query("tenantId"), LIMIT, CURSOR],
        responses=page_of("PoolContainerPage", ContainerOutput),
    )
    def get(self, request: Any, pool_id: str) -> Response:
        rows = _containers().filter(pool=find_pool(pool_id))
        return paginate(request, rows, _render, {"state": "state", "tenantId": "tenant"})


class ContainerView(WaitingView):
    @operation(
        operation_id="getContainer",
        problems={404: "container_not_found"},
        summary="Show a container",
        responses=ContainerOutput,
    )
    def get(self, request: Any, container_id: str) -> Response:
        return Response(_render(_find(_id(container_id))))

    @operation(
        operation_id="removeContainer",
        acts="A worker saves and destroys the container. A repeated request joins it.",
        problems={409: "starting", 502: "save_failed"},
        summary="Remove a container",
        description="The pool starts a replacement. A claimed container is released with a save."
        " 204: the state is saved and the container is gone. 202: not finished within"
        " `timeoutMs`. 502 `save_failed`: the state stays on the node and the save is"
        " retried. 409 `starting`: the container is not idle yet.",
        parameters=[flag("discard", "Give up the tenant's unsaved state."), TIMEOUT],
        responses={204: None, 202: None},
    )
    def delete(self, request: Any, container_id: str) -> HttpResponse:
        return self.answer(request, partial(self._begin, request, _id(container_id)))

    def _begin(self, request: Any, container_id: UUID) -> Awaited:
        until = time.time() + timeout_ms(request, DEFAULT_REMOVE_MS) / 1000
        removal = removals.begin(container_id, discard=boolean(request, "discard"))
        owners = budgets.owners(request.auth, budgets.container(container_id))

        def settle() -> Response | None:
            return Response(status=204) if removals.settle(removal) else None

        until, late = patience(until, owners), lambda: Response(status=202)
        return Awaited(removal.container_id, removals.settled, settle, until, owners, late)


def _stdin(data: dict[str, Any]) -> bytes | None:
    text = data.get("stdin")
    if text is None:
        return None
    if data["encoding"] == "utf-8":
        content = str(text).encode("utf-8", "surrogatepass")
    else:
        try:
            content = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise Invalid(FieldError("/stdin", "Not valid base64.", "invalid")) from None
    highest = settings.BOILERHOUSE_EXEC_STDIN_MAX_BYTES
    if len(content) > highest:
        raise Invalid(FieldError("/stdin", f"It has {len(content)} bytes; the limit is {highest}.", "too_large"))
    return content


def _text(data: bytes) -> str:
    return data.decode("utf-8", errors="replace")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


responses_made = threading.BoundedSemaphore(2)
"""Two responses of commands are built at a time: one takes up to 30 MiB while it is built, and then 12."""


def _execute(container_id: UUID, data: dict[str, Any]) -> HttpResponse:
    encode = _text if data["encoding"] == "utf-8" else _base64
    try:
        done = activity.run(container_id, tuple(data["command"]), data["timeout_ms"], _stdin(data))
    except ExecTimedOut as error:
        with responses_made:
            return from_error(error, **_streams(error, encode))
    with responses_made:
        shown = {"exitCode": done.exit_code, **_streams(done, encode), "truncated": done.truncated}
        content = AsciiRenderer().render({**shown, "durationMs": done.duration_ms})
    return HttpResponse(content, content_type="application/json")


def _streams(done: Executed | ExecTimedOut, encode: Callable[[bytes], str]) -> dict[str, Any]:
    return {
        "stdout": encode(done.stdout),
        "stderr": encode(done.stderr),
        "stdoutTruncated": done.stdout_truncated,
        "stderrTruncated": done.stderr_truncated,
    }


_EXEC: dict[str, Any] = {
    "description": "Waits until the command ends, at most `timeoutMs`. Then it and its children are killed, and"
    " the answer is 504 with the output so far. The first "
    f"{settings.BOILERHOUSE_EXEC_OUTPUT_MAX_BYTES} bytes of each stream are returned; `stdoutTruncated` and"
    " `stderrTruncated` say whether there was more. `stdin` may have"
    f" {settings.BOILERHOUSE_EXEC_STDIN_MAX_BYTES} bytes, the command with its arguments"
    f" {settings.BOILERHOUSE_EXEC_COMMAND_MAX_BYTES}. The environment is the container's. A command that does not exist"
    " ends with 127, one that cannot be executed with 126; `stderr` says why. With `encoding: base64`, `stdin` and the"
    " output are exact bytes; with `utf-8`, invalid UTF-8 in the output becomes replacement characters. The limits are"
    " settings of the deployment: `BOILERHOUSE_EXEC_…`.",
    "request": ExecInput,
    "responses": {200: ExecOutput, (504, "application/problem+json"): ExecProblem},
}


class ExecView(ApiView):
    lane = "slow"

    @operation(
        operation_id="execInContainer",
        problems={
            409: "not_claimed releasing",
            502: "container_not_running bad_command command_lost engine_failed",
            503: "engine_unavailable other_node node_unreachable",
            429: "too_many_commands",
            504: "exec_timed_out",
        },
        summary="Run a command in a container",
        acts=RUNS,
        **_EXEC,
    )
    def post(self, request: Any, container_id: str) -> HttpResponse:
        data = self.read(ExecInput).validated_data
        return _execute(_find(_id(container_id)).pk, data)


class TenantExecView(ApiView):
    lane = "slow"

    @operation(
        operation_id="execForTenant",
        problems={
            409: "not_assigned releasing",
            502: "container_not_running bad_command command_lost engine_failed",
            503: "engine_unavailable other_node node_unreachable",
            429: "too_many_commands",
            504: "exec_timed_out",
        },
        summary="Run a command in the tenant's container",
        acts=RUNS,
        **_EXEC,
    )
    def post(self, request: Any, tenant_id: str) -> HttpResponse:
        data = self.read(ExecInput).validated_data
        return _execute(activity.held_by(tenant_id), data)


_LOGS: dict[str, Any] = {
    "description": "The standard output and error of the container's processes, unchanged; at most 1"
    " MiB. With `follow=true`, new lines follow until the container ends or the key is"
    " revoked. If the container died while a tenant held it, the last 32 KiB are"
    " available until the tenant claims again.",
    "parameters": [
        whole("tail", 0, MAX_TAIL, f"The number of last lines (default {DEFAULT_TAIL})."),
        OpenApiParameter("since", OpenApiTypes.DATETIME, description="Only lines written after this time."),
        flag("follow", "Follow the log."),
    ],
    "responses": {(200, "text/plain"): OpenApiResponse(OpenApiTypes.STR, description="The log")},
}


def _since(request: Any) -> float | None:
    value = request.query_params.get("since")
    if value is None:
        return None
    try:
        at: datetime | None = parse_datetime(value)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None or at.timestamp() < 0:
        detail = "Query parameter since: must be a time such as 2026-01-31T12:00:00Z"
        raise Invalid(FieldError("", detail, "invalid"))
    return at.timestamp()


def _logs(request: Any, container: Container) -> HttpResponse:
    tail, since = integer(request, "tail", DEFAULT_TAIL, 0, MAX_TAIL), _since(request)
    kind = "text/plain; charset=utf-8"
    if not boolean(request, "follow"):
        return HttpResponse(activity.logs(container, tail, since), content_type=kind)
    hold = budgets.follows.enter(*budgets.owners(request.auth, budgets.container(container.pk)))
    with hold.kept():
        source, key_id = activity.follow_logs(container, tail, since), request.auth.pk
    is_alive = sync_to_async(api_keys.lives, thread_sensitive=False)

    async def run(writer: Writer) -> None:
        looked = time.monotonic()
        with suppress(EngineUnavailable):  # the response has started, so it can only end
            async with aclosing(from_thread(source, LOOK_AT_KEY_EVERY_S)) as chunks:
                async for chunk in chunks:
                    if chunk:
                        await writer.write(chunk)
                    if time.monotonic() - looked >= LOOK_AT_KEY_EVERY_S:
                        looked = time.monotonic()
                        if not await is_alive(key_id):
                            return

    stream = Stream(run, kind)
    stream.when_closed(source.close)
    stream.when_closed(hold.release)
    return stream


def _kept(request: Any, death: Death) -> HttpResponse:
    """The stored log of a container that no longer exists; there is nothing to follow."""
    tail, since = integer(request, "tail", DEFAULT_TAIL, 0, MAX_TAIL), _since(request)
    boolean(request, "follow")
    return HttpResponse(deaths.log_of(death, tail, since), content_type="text/plain; charset=utf-8")


class LogsView(ApiView):
    lane = "slow"
    viewer_may_read = False

    @operation(
        operation_id="getContainerLogs",
        problems={
            502: "container_missing engine_failed",
            503: "engine_unavailable too_many_streams other_node node_unreachable",
        },
        summary="Read a container's log",
        **_LOGS,
    )
    def get(self, request: Any, container_id: str) -> HttpResponse:
        pk = _id(container_id)
        try:
            return _logs(request, _find(pk))
        except (ContainerNotFound, ContainerMissing):
            death = deaths.of_container(pk)
            if death is None:
                raise
            return _kept(request, death)


class TenantLogsView(ApiView):
    lane = "slow"
    viewer_may_read = False

    @operation(
        operation_id="getTenantLogs",
        problems={
            502: "container_missing engine_failed",
            503: "engine_unavailable too_many_streams other_node node_unreachable",
            409: "not_assigned releasing",
        },
        summary="Read the log of the tenant's container",
        **_LOGS,
    )
    def get(self, request: Any, tenant_id: str) -> HttpResponse:
        try:
            return _logs(request, _find(activity.held_by(tenant_id)))
        except (NotAssigned, Releasing, ContainerNotFound, ContainerMissing):
            death = deaths.last_of(tenant_id)
            if death is None:
                raise
            return _kept(request, death)
