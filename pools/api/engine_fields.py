"""Workload fields for the engine, besides image and volumes."""

from __future__ import annotations

import re
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError

from boilerhouse.api.serializers import ApiSerializer, LineField, StringMapField
from boilerhouse.core.text import has_control
from pools import addresses, limits, mounts
from pools.runtime.base import OUR_LABELS

MAX_MEMORY_MB = 4_194_304
MAX_LIMIT = 2**53 - 1
"""The largest whole number that all JSON parsers represent exactly."""
MAX_TMPFS, MAX_DEVICES, MAX_HOSTS, MAX_LABELS, MAX_DNS = 20, 20, 100, 100, 3
MAX_ULIMITS = len(limits.CEILINGS)
MAX_LABEL_NAME, MAX_LABEL = 200, 2000
HOST_PART = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?"
HOST_NAME = re.compile(rf"^(?=.{{1,253}}\Z){HOST_PART}(\.{HOST_PART})*\Z", re.IGNORECASE)
ENGINES_HOSTS = frozenset({"localhost", "ip6-localhost", "ip6-loopback"})
LABEL_NAME = re.compile(rf"^[A-Za-z0-9]([A-Za-z0-9._/-]{{0,{MAX_LABEL_NAME - 2}}}[A-Za-z0-9])?\Z")
RESERVED_LABELS = (OUR_LABELS, "com.docker.", "io.docker.", "org.dockerproject.")
"""Our labels record the owner of a container; tools such as compose would take a container with the engine's own labels
for theirs."""


class GpusField(ApiSerializer):
    count = serializers.IntegerField(
        min_value=-1, max_value=64, required=False, allow_null=True, help_text="-1 means all; default 1"
    )
    ids = serializers.ListField(
        child=LineField(max_length=100),
        required=False,
        max_length=64,
        help_text="GPUs by index or id, instead of count",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        count, ids = attrs.get("count"), attrs.get("ids", [])
        if count is not None and ids:
            raise ValidationError({"count": ErrorDetail("Give count or ids, not both.", "invalid")})
        if count == 0:
            raise ValidationError({"count": ErrorDetail("Leave gpus out for no GPUs; -1 means all.", "out_of_range")})
        return {"count": 0 if ids else 1 if count is None else count, "ids": ids}


class TmpfsField(ApiSerializer):
    """A directory in memory: owned by the container's user, empty at start, lost with the container."""

    path = LineField(max_length=mounts.MAX_PATH, trim_whitespace=False)
    size_mb = serializers.IntegerField(min_value=1, max_value=MAX_MEMORY_MB)
    exec = serializers.BooleanField(default=False, help_text="Whether programs may run from it")

    def validate_path(self, value: str) -> str:
        if not mounts.is_normal(value):
            raise ValidationError("Must be an absolute, normalized path such as /scratch, but not /.", code="invalid")
        return value


class UlimitField(ApiSerializer):
    name = serializers.ChoiceField(sorted(limits.CEILINGS))
    soft = serializers.IntegerField(
        min_value=-1, max_value=MAX_LIMIT, required=False, allow_null=True, help_text="Default: the same as hard"
    )
    hard = serializers.IntegerField(min_value=-1, max_value=MAX_LIMIT, help_text="-1 means no limit")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        soft = attrs.get("soft")
        return {**attrs, "soft": attrs["hard"] if soft is None else soft}


class DeviceField(ApiSerializer):
    path = LineField(
        max_length=mounts.MAX_PATH, trim_whitespace=False, help_text="The path on the node and in the container"
    )
    permissions = serializers.ChoiceField(["r", "rw"], default="rw")

    def validate_path(self, value: str) -> str:
        if not value.startswith("/dev/") or not mounts.is_normal(value) or ":" in value:
            raise ValidationError("Must be the path of a device, such as /dev/kvm.", code="invalid")
        return value


@extend_schema_field(
    {"type": "object", "additionalProperties": {"type": "string", "format": "ip"}, "maxProperties": MAX_HOSTS}
)
class HostsField(StringMapField):
    """Names and the address that each has in the container."""

    def to_internal_value(self, data: Any) -> Any:
        hosts: dict[str, str] = super().to_internal_value(data)
        wrong: dict[str, list[ErrorDetail]] = {}
        for name, address in hosts.items():
            if not HOST_NAME.match(name):
                wrong[name] = [ErrorDetail("Must be a host name, such as db.internal.", "invalid")]
            elif name.lower() in ENGINES_HOSTS:
                wrong[name] = [ErrorDetail("This name is the container itself.", "not_allowed")]
            elif problem := addresses.problem(address, loopback=True):
                wrong[name] = [ErrorDetail(problem.detail, problem.code)]
        if wrong:
            raise ValidationError(wrong)
        if len(hosts) > MAX_HOSTS:
            raise ValidationError(f"At most {MAX_HOSTS} hosts.", code="max_length")
        return hosts


class ResolversField(serializers.ListField):
    """Addresses of resolvers that containers ask."""

    def __init__(self, **options: Any) -> None:
        super().__init__(child=serializers.IPAddressField(), max_length=MAX_DNS, **options)

    def to_internal_value(self, data: Any) -> Any:
        resolvers: list[str] = super().to_internal_value(data)
        wrong: dict[Any, Any] = {}
        for index, address in enumerate(resolvers):
            if problem := addresses.problem(address, loopback=False):
                wrong[index] = [ErrorDetail(problem.detail, problem.code)]
        if wrong:
            raise ValidationError(wrong)
        return resolvers


@extend_schema_field(
    {
        "type": "object",
        "additionalProperties": {"type": "string", "maxLength": MAX_LABEL},
        "maxProperties": MAX_LABELS,
    }
)
class LabelsField(StringMapField):
    """Labels that the engine shows of each container."""

    def to_internal_value(self, data: Any) -> Any:
        labels: dict[str, str] = super().to_internal_value(data)
        wrong: dict[str, list[ErrorDetail]] = {}
        for name, value in labels.items():
            reserved = next((prefix for prefix in RESERVED_LABELS if f"{name.lower()}.".startswith(prefix)), None)
            if not LABEL_NAME.match(name):
                detail = (
                    f"Use 1 to {MAX_LABEL_NAME} letters, digits and . _ - /, beginning and ending with a letter or"
                    " digit."
                )
                wrong[name] = [ErrorDetail(detail, "invalid")]
            elif reserved:
                detail = f"A workload cannot set labels that begin with {reserved}."
                wrong[name] = [ErrorDetail(detail, "not_allowed")]
            elif len(value) > MAX_LABEL or has_control(value):
                wrong[name] = [ErrorDetail(f"Use at most {MAX_LABEL} characters in one line.", "invalid")]
        if wrong:
            raise ValidationError(wrong)
        if len(labels) > MAX_LABELS:
            raise ValidationError(f"At most {MAX_LABELS} labels.", code="max_length")
        return labels
