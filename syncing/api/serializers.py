"""Sync specs and runs as the API shows and takes them."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError

from boilerhouse.core.api.serializers import ApiSerializer
from pools.api.serializers import absolute_path, slug
from syncing import locations, patterns
from syncing.models import SyncRun, SyncSpec
from syncing.sinks import check_flag
from syncing.states import Direction, Mode, SyncRunState, Trigger

BUCKET = re.compile(r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\Z")


def _path(value: str) -> None:
    if problem := locations.check_path(value):
        raise ValidationError(problem, code="path")


def _pattern(value: str) -> None:
    if problem := patterns.check(value):
        raise ValidationError(problem, code="pattern")


def _flag(value: str) -> None:
    if problem := check_flag(value):
        raise ValidationError(problem, code="flag")


def _bucket(value: str) -> None:
    if not BUCKET.match(value):
        raise ValidationError("Not a bucket name.", code="invalid")


def _endpoint(value: str) -> None:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ValidationError("Give http(s)://host[:port], without credentials.", code="invalid")


class MappingField(ApiSerializer):
    container_path = serializers.CharField(validators=[absolute_path], max_length=400)
    pattern = serializers.CharField(required=False, allow_null=True, validators=[_pattern])
    sink_path = serializers.CharField(default="", allow_blank=True, validators=[_path])
    direction = serializers.ChoiceField(Direction.choices)
    mode = serializers.ChoiceField(Mode.choices)


class SinkField(ApiSerializer):
    type = serializers.ChoiceField(["s3"])
    bucket = serializers.CharField(validators=[_bucket])
    region = serializers.CharField(max_length=60)
    prefix = serializers.CharField(default="", allow_blank=True, validators=[_path])
    endpoint = serializers.CharField(required=False, allow_null=True, max_length=300, validators=[_endpoint])
    provider = serializers.RegexField(r"^[A-Za-z0-9]{1,40}\Z", required=False, allow_null=True)
    access_key_id = serializers.CharField(required=False, allow_null=True, max_length=200)
    secret_access_key = serializers.CharField(required=False, allow_null=True, max_length=500, write_only=True)
    credential_id = serializers.CharField(required=False, allow_null=True, max_length=63)
    rclone_flags = serializers.ListField(child=serializers.CharField(validators=[_flag]), required=False, max_length=20)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        given = [bool(attrs.get(name)) for name in ("access_key_id", "secret_access_key")]
        if attrs.get("credential_id"):
            if any(given):
                detail = "Give credentialId or keys, not both."
                raise ValidationError({"credentialId": ErrorDetail(detail, "invalid")})
            return attrs
        if given == [True, False] and self._keeps_secret(attrs):
            return attrs
        if any(given) and not all(given):
            missing = "secretAccessKey" if given[0] else "accessKeyId"
            raise ValidationError({missing: ErrorDetail("Give both keys or none.", "required")})
        if not any(given) and not settings.BOILERHOUSE_S3_ENV_AUTH:
            detail = "Required: this deployment does not lend the host's own rights (BOILERHOUSE_S3_ENV_AUTH)."
            raise ValidationError({"accessKeyId": ErrorDetail(detail, "required")})
        return attrs

    def _keeps_secret(self, attrs: dict[str, Any]) -> bool:
        """Whether a PUT leaves the keys as stored: never for another endpoint, which would be shown their use."""
        stored: SyncSpec | None = self.context.get("stored")
        if stored is None or not stored.sink_secrets:
            return False
        same = {"accessKeyId": "access_key_id", "endpoint": "endpoint", "bucket": "bucket"}
        return all((stored.sink.get(key) or None) == (attrs.get(name) or None) for key, name in same.items())


class PolicyField(ApiSerializer):
    on_claim = serializers.BooleanField(default=False)
    on_release = serializers.BooleanField(default=False)
    interval_ms = serializers.IntegerField(min_value=5000, max_value=2**40, required=False, allow_null=True)
    allow_manual_trigger = serializers.BooleanField(default=True)


class SyncSpecInput(ApiSerializer):
    read_only_ignored = frozenset({"sinkHealth", "createdAt", "updatedAt"})

    id = serializers.CharField(required=False, validators=[slug])
    name = serializers.CharField(required=False, max_length=200)
    pool_id = serializers.CharField(max_length=63)
    mappings = MappingField(many=True, allow_empty=False, max_length=50)  # type: ignore[call-arg]
    sink = SinkField()
    policy = PolicyField()

    def parts(self) -> dict[str, Any]:
        """The validated body as arguments of the service verbs, secrets apart from the sink."""
        data = self.validated_data
        sink = data["sink"]
        names = {"bucket": "bucket", "region": "region", "prefix": "prefix", "endpoint": "endpoint", "type": "type"}
        names |= {
            "credentialId": "credential_id",
            "provider": "provider",
            "accessKeyId": "access_key_id",
            "rcloneFlags": "rclone_flags",
        }
        policy = dict(data["policy"])
        return {
            "mappings": [{**mapping, "pattern": mapping.get("pattern") or ""} for mapping in data["mappings"]],
            "sink": {name: sink[key] for name, key in names.items() if sink.get(key) is not None},
            "sink_secrets": self._secrets(sink),
            "credential_id": sink.get("credential_id") or None,
            **{name: policy[name] for name in ("on_claim", "on_release", "allow_manual_trigger")},
            "interval_ms": policy.get("interval_ms"),
        }

    def _secrets(self, sink: dict[str, Any]) -> dict[str, str] | None:
        if sink.get("secret_access_key"):
            return {"accessKeyId": sink["access_key_id"], "secretAccessKey": sink["secret_access_key"]}
        stored: SyncSpec | None = self.context.get("stored")
        if sink.get("access_key_id") and stored is not None:
            kept: dict[str, str] | None = stored.sink_secrets
            return kept
        return None


class SinkHealthOutput(ApiSerializer):
    state = serializers.ChoiceField(["healthy", "unhealthy"], required=False)
    checked_at = serializers.DateTimeField(required=False)
    code = serializers.CharField(required=False)
    detail = serializers.CharField(required=False)


class SyncSpecOutput(SyncSpecInput):
    sink_health = SinkHealthOutput()
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


def render_spec(spec: SyncSpec) -> dict[str, Any]:
    return {
        "id": spec.pk,
        "name": spec.name,
        "poolId": spec.pool_id,
        "mappings": [
            {
                "containerPath": m.container_path,
                **({"pattern": m.pattern} if m.pattern else {}),
                "sinkPath": m.sink_path,
                "direction": m.direction,
                "mode": m.mode,
            }
            for m in spec.mappings.all()
        ],
        "sink": spec.sink,
        "policy": {
            "onClaim": spec.on_claim,
            "onRelease": spec.on_release,
            "intervalMs": spec.interval_ms,
            "allowManualTrigger": spec.allow_manual_trigger,
        },
        "sinkHealth": spec.sink_health,
        "createdAt": spec.created_at,
        "updatedAt": spec.updated_at,
    }


class ErrorOutput(ApiSerializer):
    code = serializers.CharField()
    detail = serializers.CharField()


class RunOutput(ApiSerializer):
    id = serializers.UUIDField()
    spec_id = serializers.CharField()
    tenant_id = serializers.CharField()
    container_id = serializers.UUIDField()
    generation = serializers.IntegerField()
    direction = serializers.ChoiceField(Direction.choices)
    trigger = serializers.ChoiceField(Trigger.choices)
    state = serializers.ChoiceField(SyncRunState.choices)
    steps = serializers.ListField(child=serializers.JSONField())
    progress = serializers.JSONField()
    deleted = serializers.IntegerField()
    deletes = serializers.CharField(allow_null=True)
    skipped = serializers.ListField(child=serializers.CharField())
    error = ErrorOutput(allow_null=True)
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)


class RunsOutput(ApiSerializer):
    runs = RunOutput(many=True)


def render_run(run: SyncRun) -> dict[str, Any]:
    return {
        "id": str(run.pk),
        "specId": run.spec_id,
        "tenantId": run.tenant_id,
        "containerId": str(run.container_id),
        "generation": run.generation,
        "direction": run.direction,
        "trigger": run.trigger,
        "state": run.state,
        "steps": run.steps,
        "progress": run.progress,
        "deleted": run.deleted,
        "deletes": run.deletes or None,
        "skipped": run.skipped,
        "error": {"code": run.error_code, "detail": run.error_detail} if run.error_code else None,
        "createdAt": run.created_at,
        "startedAt": run.started_at,
        "finishedAt": run.finished_at,
    }
