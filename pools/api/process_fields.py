"""Workload fields for the process."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ValidationError

from boilerhouse.api.serializers import LineField
from pools import mounts

STOP_SIGNALS = (
    "SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGPWR", "SIGKILL", "SIGRTMIN+3",
)  # fmt: skip
MAX_WORDS = 200
IMAGES_OWN = "image"
"""Stands for the image's own value."""


def working_directory(value: str) -> None:
    if value != "/" and not mounts.is_normal(value):
        raise ValidationError("Must be an absolute, normalized path such as /app.", code="invalid")


@extend_schema_field({"type": "string", "pattern": r"^(/|(/[^/\x00-\x1f\x7f-\x9f]+)+)$", "maxLength": mounts.MAX_PATH})
class WorkingDirField(LineField):
    """An absolute path in a container, or its root."""

    default_validators = [working_directory]

    def __init__(self, **options: Any) -> None:
        super().__init__(max_length=mounts.MAX_PATH, trim_whitespace=False, **options)


@extend_schema_field(
    {"oneOf": [{"type": "boolean", "const": True}, {"type": "string", "const": IMAGES_OWN}], "default": True}
)
class InitField(serializers.Field[bool, Any, Any, bool]):
    """``true``: a small init is process 1; ``"image"``: the image's own process is."""

    def to_internal_value(self, data: Any) -> bool:
        if data is True:
            return True
        if data == IMAGES_OWN:
            return False
        raise ValidationError('Must be true, or "image" to run only the image\'s own process.', code="invalid")

    def to_representation(self, value: bool) -> Any:
        return True if value else IMAGES_OWN


@extend_schema_field(
    {
        "type": "array",
        "prefixItems": [{"type": "string", "minLength": 1}],
        "items": {"type": "string"},
        "maxItems": MAX_WORDS,
    }
)
class EntrypointField(serializers.ListField):
    """The words of an entrypoint; none at all is no entrypoint."""

    child = serializers.CharField(trim_whitespace=False, allow_blank=True)

    def __init__(self, **options: Any) -> None:
        super().__init__(max_length=MAX_WORDS, **options)

    def to_internal_value(self, data: Any) -> list[str]:
        words: list[str] = super().to_internal_value(data)
        if words and not words[0]:
            raise ValidationError(
                {"0": ["The first element must name a program. Use an empty list for no entrypoint."]}, code="blank"
            )
        return words
