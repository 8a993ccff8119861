"""OpenAPI: every operation also documents the problem documents it may answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiParameter, extend_schema, inline_serializer
from rest_framework import serializers

H = TypeVar("H", bound=Callable[..., Any])


class ProblemItem(serializers.Serializer[Any]):
    pointer = serializers.CharField(help_text="JSON Pointer into the request body")
    detail = serializers.CharField()
    code = serializers.CharField()


class Problem(serializers.Serializer[Any]):
    """RFC 9457 problem document."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    code = serializers.CharField()
    requestId = serializers.CharField()
    errors = ProblemItem(many=True)  # type: ignore[assignment]


def operation(*, parameters: Sequence[OpenApiParameter] = (), request: Any = None, **schema: Any) -> Callable[[H], H]:
    """Document a handler of an ApiView. What it names here is what it takes: other query parameters are refused,
    and a body too where ``request`` is None.
    """

    def decorate(handler: H) -> H:
        function: Any = handler
        function.query_parameters = frozenset(one.name for one in parameters if one.location == OpenApiParameter.QUERY)
        function.takes_body = request is not None
        documented: H = extend_schema(parameters=list(parameters), request=request, **schema)(handler)
        return documented

    return decorate


IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    str,
    OpenApiParameter.HEADER,
    description="For 24 hours the same request with the same key gets the same answer instead of being done again.",
)
IF_MATCH = OpenApiParameter(
    "If-Match", str, OpenApiParameter.HEADER, description="The `ETag` that the object must still have, else 412."
)


class ProblemAutoSchema(AutoSchema):
    """Adds to each operation the problems and headers that come from what all operations share."""

    def get_override_parameters(self) -> list[Any]:
        found = list(super().get_override_parameters())
        if not getattr(self.view, "is_public", False):
            found += {"POST": [IDEMPOTENCY_KEY], "PUT": [IF_MATCH]}.get(self.method, [])
        return found

    def get_tags(self) -> list[str]:
        """The first word of the path: workloads, pools, tenants …"""
        return [self.path.removeprefix("/api/v1/").split("/")[0]]

    def _get_response_bodies(self, direction: Literal["request", "response"] = "response") -> Any:
        bodies = super()._get_response_bodies(direction)
        codes = {"422", *getattr(self.view, "problem_codes", ())}
        if "{" in self.path:
            codes.add("404")
        if not getattr(self.view, "is_public", False):
            codes |= {"401", "403", "429", "503"}
        codes |= {"POST": {"400", "409", "413", "415"}, "PUT": {"400", "412", "413", "415"}}.get(self.method, set())
        if self.method == "DELETE":
            codes |= {"400", "413", "415"}
        for code in sorted(codes - set(bodies)):
            bodies[code] = self._get_response_for_code(  # type: ignore[no-untyped-call]
                Problem, code, media_types=["application/problem+json"], direction=direction
            )
        return bodies


def page_of(name: str, item: type[serializers.Serializer[Any]]) -> serializers.Serializer[Any]:
    """The schema of a list's page."""
    fields = {"items": item(many=True), "nextCursor": serializers.CharField(allow_null=True)}
    return inline_serializer(name, fields)


LIMIT = OpenApiParameter("limit", int, description="Items per page, 1 to 200 (default 50).")
CURSOR = OpenApiParameter("cursor", str, description="`nextCursor` of the page before.")


def query(name: str, description: str = "") -> OpenApiParameter:
    return OpenApiParameter(name, str, description=description or f"Only items with this {name}; repeat for OR.")
