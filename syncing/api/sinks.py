"""A spec's sink as the API takes it: one shape per kind (``Sink.serializer``), secrets write-only."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import PolymorphicProxySerializer, extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError

from syncing.sinks import KINDS
from syncing.sinks.inputs import StoredSink


def _serializers() -> dict[str, Any]:
    return {name: kind.serializer() for name, kind in KINDS.items()}


@extend_schema_field(PolymorphicProxySerializer("Sink", _serializers, "type"))
class SinkField(serializers.Field[StoredSink, Any, Any, Any]):
    """Any kind of sink; validates to a StoredSink."""

    def to_internal_value(self, data: Any) -> StoredSink:
        if not isinstance(data, dict):
            raise ValidationError("Must be an object.", code="invalid")
        kind = KINDS.get(str(data.get("type")))
        if kind is None:
            detail = f"Must be one of {', '.join(KINDS)}."
            raise ValidationError({"type": ErrorDetail(detail, "invalid_choice" if "type" in data else "required")})
        body = kind.serializer()(data=data, context=self.context)
        body.is_valid(raise_exception=True)
        return body.take()

    def to_representation(self, value: Any) -> Any:
        return value
