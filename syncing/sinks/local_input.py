"""The serializer of a local sink."""

from __future__ import annotations

from pathlib import Path

from rest_framework import serializers
from rest_framework.exceptions import ValidationError

from pools.api.serializers import PathField
from syncing import locations
from syncing.sinks.inputs import SinkInput, StoredSink
from syncing.sinks.local import local_root


class LocalSinkInput(SinkInput):
    type = serializers.ChoiceField(["local"])
    path = PathField()

    def validate_path(self, value: str) -> str:
        root = local_root()
        if root is None:
            detail = "This deployment allows no local sinks (BOILERHOUSE_LOCAL_SINK_ROOT)."
            raise ValidationError(detail, code="not_allowed")
        if ".." in value.split("/") or not (Path(value) == root or Path(value).is_relative_to(root)):
            raise ValidationError(f"Must be below {root}.", code="not_allowed")
        if Path(value) != root and (problem := locations.check_path(str(Path(value).relative_to(root)))):
            raise ValidationError(problem, code="path")
        return str(Path(value))

    def take(self) -> StoredSink:
        return StoredSink(self._public_fields("type", "path"))
