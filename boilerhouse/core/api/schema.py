"""OpenAPI: every operation also documents the problem documents it may answer."""

from __future__ import annotations

from typing import Any, Literal

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiParameter, inline_serializer
from rest_framework import serializers


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


class ProblemAutoSchema(AutoSchema):
    def _get_response_bodies(self, direction: Literal["request", "response"] = "response") -> Any:
        bodies = super()._get_response_bodies(direction)
        codes = {"404", "422", *getattr(self.view, "problem_codes", ())}
        if not getattr(self.view, "is_public", False):
            codes |= {"401", "403"}
        if self.method in {"POST", "PUT"}:
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
