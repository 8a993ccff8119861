"""Commands that outlive their request, by tenant and, for staff, by container."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework.response import Response

from boilerhouse.api.base import ApiView
from boilerhouse.api.pagination import integer
from boilerhouse.api.schema import operation, whole
from boilerhouse.core import bounds
from boilerhouse.core.errors import FieldError, Invalid
from boilerhouse.process import budgets
from boilerhouse.web.problems import from_error
from boilerhouse.web.rendering import AsciiRenderer
from pools.api.serializers import ExecProblem
from pools.errors import CommandNotFound, ContainerNotFound, ExecTimedOut
from tenants import activity, commands
from tenants.api.command_fields import (
    ENCODINGS,
    CommandInput,
    CommandListOutput,
    CommandOutput,
    FinishedCommandOutput,
    SignalInput,
    SizeField,
    StartedCommandOutput,
    StdinInput,
    decoded,
    encoded,
    render_command,
    render_finished,
    render_started,
    wish_of,
)
from tenants.api.command_output import output_stream
from tenants.api.container_views import responses_made

MAX_OFFSET = (1 << 53) - 1
PROBLEMS = {
    409: "releasing needs_guest_agent",
    429: "too_many_commands",
    502: "container_not_running command_lost engine_failed",
    503: "engine_unavailable other_node node_unreachable",
}
OF_ONE = {**PROBLEMS, 404: "command_not_found"}
RUNNING = {**OF_ONE, 409: f"{PROBLEMS[409]} command_ended input_closed"}
AFTER = whole("after", 0, MAX_OFFSET, "Only output after this offset.")
ENCODING = OpenApiParameter(
    "encoding", {"type": "string", "enum": ENCODINGS, "default": "utf-8"}, description="Of `data` in the events."
)
LAST_EVENT = OpenApiParameter(
    "Last-Event-ID", {"type": "integer", "minimum": 0, "maximum": MAX_OFFSET}, OpenApiParameter.HEADER,
    description="Like `after`; takes precedence over it.",
)  # fmt: skip
RUN_DESCRIPTION = (
    "With `wait`, the answer comes when the command has ended, with the first bytes of each stream; a command that does"
    " not end within `timeoutMs` is killed, and the answer is 504 with the output so far. With `wait: false`, the"
    " answer is 201, and the command goes on without a reader: its output is at `…/output`, the last 1 MiB of it is"
    " kept until ten minutes after its end. 201 also answers a `wait` without a `timeoutMs` that lasts too long."
    " With an `Idempotency-Key`, a repeated request gets the same command even if the first one was cut off."
    " Without a guest agent in the container, the engine runs what is waited for (`via: engine`); for the rest, the"
    " answer is 409 `needs_guest_agent`."
)
OUTPUT_DESCRIPTION = (
    "Server-sent events: `stdout` and `stderr` with `{offset, data}`, then `exit` with `{exitCode, signal, timedOut}`."
    " Offsets count the bytes of both streams; an event's id is the offset after it, so `Last-Event-ID` (or `after`)"
    " resumes without loss. `gap` with `{offset}`: the output before that is no longer kept. `end` with `{reason}` ends"
    " a stream before the command has ended: `released`, `revoked` or `lost`. A comment comes every 15 seconds."
)


def container_id(path: Mapping[str, Any]) -> UUID:
    """The container that the request is about. Raises NotAssigned, Releasing, ContainerNotFound."""
    if "tenant_id" in path:
        return activity.held_by(path["tenant_id"])
    try:
        return UUID(path["container_id"])
    except ValueError:
        raise ContainerNotFound(f"No container {path['container_id'][:60]}.") from None


class _CommandView(ApiView):
    lane = "slow"
    viewer_may_read = False

    def container(self) -> UUID:
        return container_id(self.kwargs)

    def command(self) -> str:
        """Raises CommandNotFound."""
        name = str(self.kwargs["command_id"])
        if len(name) != 32 or not set(name) <= set("0123456789abcdef"):
            raise CommandNotFound(f"No command {name[:60]}.")
        return name

    def run(self) -> HttpResponse:
        data = self.read(CommandInput).validated_data
        wish, container = wish_of(data), self.container()
        command_id = commands.new_id(self._record.id if self._record is not None else None)
        if not data["wait"]:
            return Response(render_started(commands.start(container, command_id, wish)), status=201)
        try:
            done = commands.run(container, command_id, wish)
        except ExecTimedOut as error:
            with responses_made:
                return from_error(error, **_streams(error, data["encoding"]))
        if isinstance(done, commands.Running):
            return Response(render_started(done), status=201)
        with responses_made:
            content = AsciiRenderer().render(render_finished(done, data["encoding"]))
        return HttpResponse(content, content_type="application/json")

    def list_all(self) -> Response:
        return Response({"items": [render_command(entry) for entry in commands.listed(self.container())]})

    def show(self) -> Response:
        return Response(render_command(commands.find(self.container(), self.command())))

    def kill(self) -> Response:
        commands.kill(self.container(), self.command())
        return Response(status=204)

    def output(self, request: Any) -> HttpResponse:
        encoding, after = request.query_params.get("encoding", "utf-8"), integer(request, "after", 0, 0, MAX_OFFSET)
        if encoding not in ENCODINGS:
            raise Invalid(FieldError("", "Query parameter encoding: must be utf-8 or base64", "invalid"))
        if last := request.headers.get("Last-Event-ID"):
            given = bounds.natural(last, MAX_OFFSET)
            if given is None:
                raise Invalid(FieldError("", "Last-Event-ID: must be the id of an event.", "invalid"))
            after = given
        container, key = self.container(), request.auth
        hold = budgets.streams.enter(*budgets.owners(key, budgets.container(container)))
        with hold.kept():
            command = commands.open_output(container, self.command(), after)
        stream = output_stream(command, container, key.pk, encoding)
        stream.when_closed(hold.release)
        return stream

    def write(self) -> Response:
        data = self.read(StdinInput).validated_data
        content = decoded(data["data"], data["encoding"], "/data")
        commands.write(self.container(), self.command(), content, is_last=data["close"])
        return Response(status=204)

    def signal(self) -> Response:
        name = self.read(SignalInput).validated_data["signal"]
        commands.send_signal(self.container(), self.command(), name)
        return Response(status=204)

    def resize(self) -> Response:
        size = self.read(SizeField).validated_data
        commands.resize(self.container(), self.command(), size["cols"], size["rows"])
        return Response(status=204)


def _streams(error: ExecTimedOut, encoding: str) -> dict[str, Any]:
    return {
        "stdout": encoded(error.stdout, encoding), "stderr": encoded(error.stderr, encoding),
        "stdoutTruncated": error.stdout_truncated, "stderrTruncated": error.stderr_truncated,
    }  # fmt: skip


def _problems(problems: dict[int, str], *, by_tenant: bool) -> dict[int, str]:
    return {**problems, 409: f"{problems[409]} {'not_assigned' if by_tenant else 'not_claimed'}"}


_RUN: dict[str, Any] = {
    "acts": "The command has run, or runs.", "description": RUN_DESCRIPTION, "request": CommandInput,
    "responses": {
        200: FinishedCommandOutput, 201: StartedCommandOutput, (504, "application/problem+json"): ExecProblem,
    },
}  # fmt: skip
_RUN_PROBLEMS = {**PROBLEMS, 502: f"{PROBLEMS[502]} bad_command", 504: "exec_timed_out"}
_OUTPUT: dict[str, Any] = {
    "summary": "Follow a command's output", "description": OUTPUT_DESCRIPTION,
    "parameters": [AFTER, ENCODING, LAST_EVENT],
    "responses": {(200, "text/event-stream"): OpenApiResponse(OpenApiTypes.STR, description="Server-sent events")},
}  # fmt: skip
_KILL: dict[str, Any] = {
    "summary": "Kill a command and its children", "acts": "Processes are killed in the container.",
    "description": "Also what it has started in the background, and what is left of that after its end.",
    "responses": {204: None},
}  # fmt: skip
_WRITE: dict[str, Any] = {
    "summary": "Write to a command's input", "acts": "The command has read it, or will.", "request": StdinInput,
    "description": "Of a terminal, `close` types Ctrl-D.", "responses": {204: None},
}  # fmt: skip
_SIGNAL: dict[str, Any] = {
    "summary": "Send a signal to a command", "acts": "Processes in the container get it.", "request": SignalInput,
    "description": "To the command's process group.", "responses": {204: None},
}  # fmt: skip
_RESIZE: dict[str, Any] = {
    "summary": "Resize a command's terminal", "acts": "The terminal is in the container.", "request": SizeField,
    "responses": {204: None},
}  # fmt: skip


class TenantCommandsView(_CommandView):
    @operation(operation_id="runCommandForTenant", summary="Run a command in the tenant's container",
               problems=_problems(_RUN_PROBLEMS, by_tenant=True), **_RUN)  # fmt: skip
    def post(self, request: Any, tenant_id: str) -> HttpResponse:
        return self.run()

    @operation(operation_id="listCommandsOfTenant", summary="List commands in the tenant's container",
               problems=_problems(PROBLEMS, by_tenant=True), responses=CommandListOutput)  # fmt: skip
    def get(self, request: Any, tenant_id: str) -> Response:
        return self.list_all()


class CommandsView(_CommandView):
    @operation(operation_id="runCommandInContainer", summary="Run a command in a container",
               problems=_problems(_RUN_PROBLEMS, by_tenant=False), **_RUN)  # fmt: skip
    def post(self, request: Any, container_id: str) -> HttpResponse:
        return self.run()

    @operation(operation_id="listCommandsInContainer", summary="List commands in a container",
               problems=_problems(PROBLEMS, by_tenant=False), responses=CommandListOutput)  # fmt: skip
    def get(self, request: Any, container_id: str) -> Response:
        return self.list_all()


class TenantCommandView(_CommandView):
    @operation(operation_id="getCommandOfTenant", summary="Show a command",
               problems=_problems(OF_ONE, by_tenant=True), responses=CommandOutput)  # fmt: skip
    def get(self, request: Any, tenant_id: str, command_id: str) -> Response:
        return self.show()

    @operation(operation_id="killCommandOfTenant", problems=_problems(OF_ONE, by_tenant=True), **_KILL)
    def delete(self, request: Any, tenant_id: str, command_id: str) -> Response:
        return self.kill()


class CommandView(_CommandView):
    @operation(operation_id="getCommandInContainer", summary="Show a command",
               problems=_problems(OF_ONE, by_tenant=False), responses=CommandOutput)  # fmt: skip
    def get(self, request: Any, container_id: str, command_id: str) -> Response:
        return self.show()

    @operation(operation_id="killCommandInContainer", problems=_problems(OF_ONE, by_tenant=False), **_KILL)
    def delete(self, request: Any, container_id: str, command_id: str) -> Response:
        return self.kill()


class TenantCommandOutputView(_CommandView):
    @operation(operation_id="followCommandOfTenant", problems=_problems(OF_ONE, by_tenant=True), **_OUTPUT)
    def get(self, request: Any, tenant_id: str, command_id: str) -> HttpResponse:
        return self.output(request)


class CommandOutputView(_CommandView):
    @operation(operation_id="followCommandInContainer", problems=_problems(OF_ONE, by_tenant=False), **_OUTPUT)
    def get(self, request: Any, container_id: str, command_id: str) -> HttpResponse:
        return self.output(request)


class TenantStdinView(_CommandView):
    @operation(operation_id="writeToCommandOfTenant", problems=_problems(RUNNING, by_tenant=True), **_WRITE)
    def post(self, request: Any, tenant_id: str, command_id: str) -> Response:
        return self.write()


class StdinView(_CommandView):
    @operation(operation_id="writeToCommandInContainer", problems=_problems(RUNNING, by_tenant=False), **_WRITE)
    def post(self, request: Any, container_id: str, command_id: str) -> Response:
        return self.write()


class TenantSignalView(_CommandView):
    @operation(operation_id="signalCommandOfTenant", problems=_problems(RUNNING, by_tenant=True), **_SIGNAL)
    def post(self, request: Any, tenant_id: str, command_id: str) -> Response:
        return self.signal()


class SignalView(_CommandView):
    @operation(operation_id="signalCommandInContainer", problems=_problems(RUNNING, by_tenant=False), **_SIGNAL)
    def post(self, request: Any, container_id: str, command_id: str) -> Response:
        return self.signal()


class TenantResizeView(_CommandView):
    @operation(operation_id="resizeCommandOfTenant", problems=_problems(RUNNING, by_tenant=True), **_RESIZE)
    def post(self, request: Any, tenant_id: str, command_id: str) -> Response:
        return self.resize()


class ResizeView(_CommandView):
    @operation(operation_id="resizeCommandInContainer", problems=_problems(RUNNING, by_tenant=False), **_RESIZE)
    def post(self, request: Any, container_id: str, command_id: str) -> Response:
        return self.resize()
