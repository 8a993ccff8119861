"""OpenAPI: an operation's decorator declares what it accepts and documents; shared problems and headers are added."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from typing import Any, Literal, TypeVar

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, inline_serializer
from rest_framework import serializers

from boilerhouse.api.serializers import ApiSerializer

H = TypeVar("H", bound=Callable[..., Any])


class ProblemItem(serializers.Serializer[Any]):
    pointer = serializers.CharField(help_text="JSON Pointer into the request body; empty for the request as a whole")
    detail = serializers.CharField()
    code = serializers.CharField()


class Problem(serializers.Serializer[Any]):
    """RFC 9457 problem document."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    code = serializers.CharField(help_text="The error's stable code, for programs")
    requestId = serializers.CharField(help_text="The request's id, as in the log")
    errors = ProblemItem(many=True)  # type: ignore[assignment]


def operation(
    *,
    parameters: Sequence[OpenApiParameter] = (),
    request: Any = None,
    is_body_optional: bool = False,
    problems: Mapping[int, str] | None = None,
    acts: str = "",
    **schema: Any,
) -> Callable[[H], H]:
    """Document a handler of an ApiView. Query parameters that are not declared here are refused, and so is a body if
    ``request`` is None. ``problems``: the operation's own problem codes by status, separated by spaces.

    A handler that changes something is one transaction with its answer, unless ``acts`` says why it cannot be
    (ADR 67)."""

    def decorate(handler: H) -> H:
        function: Any = handler if handler.__name__ == "get" else _answering(handler, is_change=not acts)
        function.query_parameters = frozenset(
            parameter.name for parameter in parameters if parameter.location == OpenApiParameter.QUERY
        )
        function.takes_body = request is not None
        function.is_body_optional = is_body_optional
        function.problems = problems or {}
        function.acts = acts
        documented: H = extend_schema(parameters=list(parameters), request=request, **schema)(function)
        return documented

    return decorate


def _answering(handler: Callable[..., Any], *, is_change: bool) -> Callable[..., Any]:
    """The handler of an unsafe method, called by its view in the way that its errors need."""

    @wraps(handler)
    def answer(view: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        answered = view.answer_change if is_change else view.answer_act
        return answered(partial(handler, view, request, *args, **kwargs))

    return answer


IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    OpenApiParameter.HEADER,
    description="For 24 hours, the same request with the same key gets the stored answer instead of running again.",
)
IF_MATCH = OpenApiParameter(
    "If-Match", str, OpenApiParameter.HEADER, description="The `ETag` that the object must still have; otherwise 412."
)
NOT_FOUND = {
    "workload_id": "workload_not_found",
    "pool_id": "pool_not_found",
    "container_id": "container_not_found",
    "spec_id": "sync_spec_not_found",
    "run_id": "sync_run_not_found",
    "credential_id": "credential_not_found",
    "registry_credential_id": "registry_credential_not_found",
    "key_id": "api_key_not_found",
    "backup_id": "backup_not_found",
    "command_id": "command_not_found",
    "notification_id": "notification_not_found",
    "delivery_id": "delivery_not_found",
    "tenant_id": "not_found",
    "node_id": "node_not_found",
    "token_id": "node_token_not_found",
}


class ProblemAutoSchema(AutoSchema):
    """Adds the problems and headers that all operations share."""

    def get_override_parameters(self) -> list[Any]:
        parameters = list(super().get_override_parameters())
        if not getattr(self.view, "is_public", False):
            parameters += {"POST": [IDEMPOTENCY_KEY], "PUT": [IF_MATCH]}.get(self.method, [])
        return parameters

    def get_extensions(self) -> dict[str, Any]:
        handler = getattr(self.view, self.method.lower())
        return {"x-body-optional": True} if handler.is_body_optional else {}

    def get_tags(self) -> list[str]:
        """The first segment of the path: workloads, pools, tenants …"""
        return [self.path.removeprefix("/api/v1/").split("/")[0]]

    def get_serializer_name(self, serializer: Any, direction: Literal["request", "response"]) -> str:
        name = str(super().get_serializer_name(serializer, direction))
        for ending in ("Output", "Input", "Field"):
            name = name.removesuffix(ending)
        return name

    def _map_basic_serializer(self, serializer: Any, direction: str) -> Any:
        schema: dict[str, Any] = super()._map_basic_serializer(serializer, direction)  # type: ignore[no-untyped-call]
        if direction == "request" and isinstance(serializer, ApiSerializer):
            ignored = {
                name: {"description": "As returned by GET; ignored."} for name in sorted(serializer.read_only_ignored)
            }
            schema["properties"] = {**schema.get("properties", {}), **ignored}
            schema["additionalProperties"] = False
        return schema

    def _problems(self) -> dict[str, list[str]]:
        """Status → codes of all problems that the operation may return."""
        problems: dict[str, list[str]] = {"422": ["invalid"]}
        for name, code in NOT_FOUND.items():
            if f"{{{name}}}" in self.path:
                problems.setdefault("404", []).append(code)
        if not getattr(self.view, "is_public", False):
            problems |= {"401": ["not_authenticated", "authentication_failed"], "403": ["permission_denied"]}
            problems |= {"429": ["throttled", "budget_exceeded"], "503": ["database_unavailable", "database_busy"]}
        if self.method in ("POST", "PUT", "DELETE"):
            problems |= {"400": ["malformed"], "413": ["too_large"], "415": ["unsupported_media_type"]}
            problems["408"] = ["body_too_slow"]
            problems.setdefault("503", []).append("too_many_bodies")
        if self.method == "POST":
            problems["409"] = ["idempotency_key_in_flight", "answer_not_kept"]
        if self.method == "PUT":
            problems["412"] = ["precondition_failed"]
        handler = getattr(self.view, self.method.lower())
        for status, codes in handler.problems.items():
            problems[str(status)] = [*codes.split(), *problems.get(str(status), [])]
        return problems

    def _get_response_bodies(self, direction: Literal["request", "response"] = "response") -> Any:
        bodies = super()._get_response_bodies(direction)
        for status, codes in sorted(self._problems().items()):
            if status not in bodies:
                bodies[status] = self._get_response_for_code(  # type: ignore[no-untyped-call]
                    Problem, status, media_types=["application/problem+json"], direction=direction
                )
            bodies[status]["x-codes"] = list(dict.fromkeys(codes))
        return bodies


def page_of(name: str, item: type[serializers.Serializer[Any]]) -> serializers.Serializer[Any]:
    """The schema of a page of a list."""
    fields = {"items": item(many=True), "nextCursor": serializers.CharField(allow_null=True)}
    return inline_serializer(name, fields)


def whole(name: str, low: int, high: int, description: str) -> OpenApiParameter:
    """An integer query parameter."""
    return OpenApiParameter(name, {"type": "integer", "minimum": low, "maximum": high}, description=description)


def flag(name: str, description: str) -> OpenApiParameter:
    """A boolean query parameter."""
    return OpenApiParameter(name, OpenApiTypes.BOOL, description=description)


LIMIT = whole("limit", 1, 200, "Items per page (default 50).")
CURSOR = OpenApiParameter("cursor", str, description="`nextCursor` of the previous page.")


def query(name: str, description: str = "") -> OpenApiParameter:
    """A query parameter that filters a list."""
    shape = {"type": "array", "items": {"type": "string"}}
    return OpenApiParameter(name, shape, description=description or f"Only items with this {name}; repeat for OR.")
