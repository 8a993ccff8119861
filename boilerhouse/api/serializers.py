"""Base serializers: camelCase outside, snake_case inside, unknown fields refused.

Only declared field names are converted. Keys of free-form objects (environment, config …) are passed unchanged.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from django.core.validators import RegexValidator
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError

from boilerhouse.core.errors import FieldError
from boilerhouse.core.text import has_control


def camel(name: str) -> str:
    return re.sub(r"_([a-z0-9])", lambda match: match[1].upper(), name)


def nested(errors: Iterable[FieldError], below: str) -> dict[str, Any]:
    """The errors, moved below the pointer ``below``, in the form that a validator of that field raises."""
    output: dict[str, Any] = {}
    for error in errors:
        *way, last = error.pointer.removeprefix(below).strip("/").split("/")
        place = output
        for name in way:
            place = place.setdefault(name, {})
        place.setdefault(last, []).append(ErrorDetail(error.detail, error.code))
    return output


class ApiSerializer(serializers.Serializer[Any]):
    """Declare fields in snake_case; the API shows them in camelCase."""

    read_only_ignored: frozenset[str] = frozenset()
    """Read-only names that a client may send back unchanged (as returned by GET) and that are ignored."""

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        named: dict[str, serializers.Field[Any, Any, Any, Any]] = {}
        for name, field in super().get_fields().items():
            outside = camel(name)
            if outside != name and field.source is None:
                field.source = name
            named[outside] = field
        return named

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            unknown = sorted(set(map(str, data)) - set(self.fields) - self.read_only_ignored)
            if unknown:
                raise ValidationError({name: [ErrorDetail("Unknown field.", "unknown")] for name in unknown})
        return super().to_internal_value(data)


class StringMapField(serializers.DictField):
    """An object of strings. Its keys are passed unchanged."""

    child = serializers.CharField(allow_blank=True, trim_whitespace=False)


class LineField(serializers.CharField):
    """Text of one line without control characters, even at its ends, where spaces are trimmed."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if not self.allow_blank:  # for the schema, which would otherwise split a field that may be blank in two
            self.validators.append(RegexValidator(r"^[^\x00-\x1f\x7f-\x9f]*$"))

    def to_internal_value(self, data: Any) -> str:
        if isinstance(data, str) and has_control(data):
            raise ValidationError("Control characters, such as a newline, are not allowed.", code="invalid")
        text: str = super().to_internal_value(data)
        return text


class KeyField(LineField):
    """An HTTP header value: printable ASCII without spaces."""

    def to_internal_value(self, data: Any) -> str:
        text = super().to_internal_value(data)
        if any(not "!" <= character <= "~" for character in text):
            raise ValidationError("Only printable ASCII without spaces is allowed.", code="invalid")
        return text


class NumberField(serializers.FloatField):
    """A finite number."""

    def to_internal_value(self, data: Any) -> float:
        number: float = super().to_internal_value(data)
        if isinstance(data, bool) or not math.isfinite(number):
            self.fail("invalid")
        return number


@extend_schema_field({"type": "object", "additionalProperties": {}})
class ObjectField(serializers.JSONField):
    """Any JSON object."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, dict):
            raise ValidationError("Must be an object.", code="invalid")
        return super().to_internal_value(data)
