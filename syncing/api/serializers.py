"""Serializers of sync specs and runs."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import ValidationError

from boilerhouse.api.serializers import ApiSerializer, LineField, ObjectField
from boilerhouse.core.bounds import TEN_YEARS_MS
from pools.api.serializers import IdField, PathField
from syncing import patterns
from syncing.api.sinks import SinkField
from syncing.models import SyncRun, SyncSpec
from syncing.sinks.inputs import StoredSink, location_path
from syncing.states import Direction, Mode, Quiesce, SyncRunState, Trigger


def _pattern(value: str) -> None:
    if problem := patterns.check(value):
        raise ValidationError(problem, code="pattern")


class MappingField(ApiSerializer):
    container_path = PathField()
    pattern = LineField(required=False, allow_null=True, validators=[_pattern])
    sink_path = LineField(default="", allow_blank=True, validators=[location_path])
    direction = serializers.ChoiceField(Direction.choices)
    mode = serializers.ChoiceField(Mode.choices)


class PolicyField(ApiSerializer):
    on_claim = serializers.BooleanField(default=False)
    on_release = serializers.BooleanField(default=False)
    interval_ms = serializers.IntegerField(min_value=5000, max_value=TEN_YEARS_MS, required=False, allow_null=True)
    allow_manual_trigger = serializers.BooleanField(default=True)
    quiesce = serializers.ChoiceField(
        Quiesce.choices,
        default=Quiesce.FREEZE,
        help_text="Whether a running container is frozen briefly while it is saved",
    )


class SyncSpecInput(ApiSerializer):
    read_only_ignored = frozenset({"sinkHealth", "createdAt", "updatedAt"})

    id = IdField(required=False)
    name = LineField(required=False, max_length=200)
    pool_id = LineField(max_length=63)
    mappings = MappingField(many=True, allow_empty=False, max_length=50)  # type: ignore[call-arg]
    sink = SinkField()
    policy = PolicyField()

    def parts(self) -> dict[str, Any]:
        """The validated body as arguments of the services, secrets separate from the sink."""
        data = self.validated_data
        policy = dict(data["policy"])
        sink: StoredSink = data["sink"]
        return {
            "mappings": [{**mapping, "pattern": mapping.get("pattern") or ""} for mapping in data["mappings"]],
            "sink": sink.public,
            "sink_secrets": sink.secrets,
            "credential_id": sink.credential_id,
            **{name: policy[name] for name in ("on_claim", "on_release", "allow_manual_trigger", "quiesce")},
            "interval_ms": policy.get("interval_ms"),
        }


class SinkHealthOutput(ApiSerializer):
    state = serializers.ChoiceField(["healthy", "unhealthy"], required=False)
    checked_at = serializers.DateTimeField(required=False)
    transferred_at = serializers.DateTimeField(required=False, help_text="When a test save and restore last succeeded.")
    conditional_writes = serializers.BooleanField(required=False)
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
            "quiesce": spec.quiesce,
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
    container_id = serializers.UUIDField(allow_null=True)
    generation = serializers.IntegerField()
    direction = serializers.ChoiceField(Direction.choices)
    trigger = serializers.ChoiceField(Trigger.choices)
    state = serializers.ChoiceField(SyncRunState.choices)
    steps = serializers.ListField(child=ObjectField())
    progress = ObjectField()
    deleted = serializers.IntegerField()
    deletes = serializers.CharField(allow_null=True)
    skipped = serializers.ListField(child=serializers.CharField())
    retries = serializers.IntegerField()
    changed_during = serializers.IntegerField(
        help_text="Files that the tenant changed while they were copied, so they may be torn"
    )
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
        "containerId": str(run.container_id) if run.container_id else None,
        "generation": run.generation,
        "direction": run.direction,
        "trigger": run.trigger,
        "state": run.state,
        "steps": run.steps,
        "progress": run.progress,
        "deleted": run.deleted,
        "deletes": run.deletes or None,
        "skipped": run.skipped,
        "retries": run.retries,
        "changedDuring": sum(step.get("changedDuring", 0) for step in run.steps),
        "error": {"code": run.error_code, "detail": run.error_detail} if run.error_code else None,
        "createdAt": run.created_at,
        "startedAt": run.started_at,
        "finishedAt": run.finished_at,
    }
