"""Serializers of the settings that admins can change at run time."""

from __future__ import annotations

import re
from typing import Any

from django.conf import settings
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError

from boilerhouse.api.serializers import ApiSerializer, LineField, StringMapField
from boilerhouse.core import deployment_settings
from boilerhouse.core.bounds import TEN_YEARS_MS
from boilerhouse.core.deployment_settings import RETENTION_CEILINGS, DeploymentSettings

VARIABLE_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,62}\Z")
RESERVED = frozenset({"CONTAINER_ID", "POOL_ID", "WORKLOAD_ID", "tenantId"})
HOUR_MS = 3_600_000


def _retention() -> serializers.IntegerField:
    return serializers.IntegerField(min_value=HOUR_MS, max_value=TEN_YEARS_MS, required=False)


class RetentionField(ApiSerializer):
    """Retention periods in milliseconds. The default of each comes from the process environment."""

    events_ms = _retention()
    runs_ms = _retention()
    probes_ms = _retention()
    backups_ms = _retention()
    audit_ms = _retention()


class SettingsInput(ApiSerializer):
    """Takes the full object. The default of each setting comes from the process environment."""

    variables = StringMapField(
        default=dict, help_text="Values for `${NAME}` in workloads' environment. Not for secrets."
    )
    allow_host_network = serializers.BooleanField(required=False)
    allow_root = serializers.BooleanField(required=False)
    allowed_runtimes = serializers.ListField(child=LineField(max_length=63), required=False, max_length=50)
    allowed_networks = serializers.ListField(child=LineField(max_length=63), required=False, max_length=50)
    allowed_devices = serializers.ListField(child=LineField(max_length=400), required=False, max_length=50)
    retention = RetentionField(default=dict)

    def validate_variables(self, value: dict[str, str]) -> dict[str, str]:
        wrong = {}
        for name in value:
            if not VARIABLE_NAME.match(name) or name in RESERVED:
                wrong[name] = [ErrorDetail("Use letters, digits and _, and no built-in name.", "invalid")]
        if wrong:
            raise ValidationError(wrong)
        return value

    def to_settings(self) -> DeploymentSettings:
        data = self.validated_data
        ceilings = {kind: deployment_settings.ceiling_s(kind) for kind in RETENTION_CEILINGS}
        retention = {name.removesuffix("_ms"): ms // 1000 for name, ms in data["retention"].items()}
        return DeploymentSettings(
            variables=data["variables"],
            allow_host_network=data.get("allow_host_network", settings.BOILERHOUSE_ALLOW_HOST_NETWORK),
            allow_root=data.get("allow_root", settings.BOILERHOUSE_ALLOW_ROOT),
            allowed_runtimes=tuple(data.get("allowed_runtimes", settings.BOILERHOUSE_ALLOWED_RUNTIMES)),
            allowed_networks=tuple(data.get("allowed_networks", settings.BOILERHOUSE_ALLOWED_NETWORKS)),
            allowed_devices=tuple(data.get("allowed_devices", settings.BOILERHOUSE_ALLOWED_DEVICES)),
            retention_s={**ceilings, **retention},
        )


def render_settings(current: DeploymentSettings) -> dict[str, Any]:
    return {
        "variables": dict(current.variables),
        "allowHostNetwork": current.allow_host_network,
        "allowRoot": current.allow_root,
        "allowedRuntimes": list(current.allowed_runtimes),
        "allowedNetworks": list(current.allowed_networks),
        "allowedDevices": list(current.allowed_devices),
        "retention": {f"{kind}Ms": seconds * 1000 for kind, seconds in current.retention_s.items()},
    }
