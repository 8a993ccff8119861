"""A spec's WebDAV sink as the API takes it."""

from __future__ import annotations

import re
from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError

from boilerhouse.api.serializers import LineField
from syncing import locations
from syncing.sinks.inputs import SinkInput, StoredSink, check_endpoint

HEADER_NAME = re.compile(r"^[A-Za-z0-9-]{1,64}\Z")
HEADER_VALUE = re.compile(r"^[ -~]{1,4000}\Z")
OWN_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection", "destination", "depth"})


class HeadersField(serializers.DictField):
    """Header names with their values; the values are write-only and shown as null."""

    child = serializers.CharField(allow_null=True, trim_whitespace=False)


class HttpSinkInput(SinkInput):
    type = serializers.ChoiceField(["http"])
    endpoint = LineField(max_length=300, validators=[check_endpoint])
    headers = HeadersField(required=False)

    def validate_endpoint(self, value: str) -> str:
        if ".." in value.split("/") or "%" in value or "//" in value.partition("://")[2]:
            raise ValidationError("Must be a plain path, without .., // or %.", code="invalid")
        if {locations.MARKER_ROOT, locations.BACKUP_ROOT} & set(value.split("/")):
            detail = f"{locations.MARKER_ROOT} and {locations.BACKUP_ROOT} are reserved."
            raise ValidationError(detail, code="invalid")
        return value.rstrip("/")

    def validate_headers(self, value: dict[str, str | None]) -> dict[str, str | None]:
        wrong: dict[str, ErrorDetail] = {}
        for name, text in value.items():
            if not HEADER_NAME.match(name) or name.lower() in OWN_HEADERS:
                wrong[name] = ErrorDetail("This header cannot be set.", "invalid")
            elif text is not None and not HEADER_VALUE.match(text):
                wrong[name] = ErrorDetail("Use only printable ASCII, at most 4,000 characters.", "invalid")
        if wrong:
            raise ValidationError(wrong)
        return value

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        stored = self._stored_headers(attrs["endpoint"])
        for name, value in (attrs.get("headers") or {}).items():
            if value is None and name not in stored:
                raise ValidationError({"headers": {name: ErrorDetail("A value is required.", "required")}})
        return attrs

    def _stored_headers(self, endpoint: str) -> dict[str, str]:
        """Values that a PUT leaves as they are: never for another endpoint, which would be shown them."""
        stored = self.stored
        if stored is None or stored.sink.get("endpoint") != endpoint or not stored.sink_secrets:
            return {}
        return dict(stored.sink_secrets.get("headers") or {})

    def take(self) -> StoredSink:
        new_headers = self.validated_data.get("headers") or {}
        stored = self._stored_headers(self.validated_data["endpoint"])
        headers = {name: stored[name] if value is None else value for name, value in new_headers.items()}
        public = {**self._public_fields("type", "endpoint"), "headers": dict.fromkeys(sorted(new_headers))}
        return StoredSink(public, {"headers": headers} if headers else None)
