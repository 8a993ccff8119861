"""Serializers of claims, releases and status."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError

from boilerhouse.api.serializers import ApiSerializer, LineField, ObjectField, StringMapField
from pools import policy_names
from pools.api.network_fields import EgressField
from pools.api.serializers import CommandField, EndpointOutput, ExecInput
from pools.egress import Mode
from tenants import commands
from tenants.api.command_fields import FinishedCommandOutput
from tenants.gateway import public_urls
from tenants.models import Assignment
from tenants.states import AssignmentState, Source
from tenants.ttl import MAX_TTL_MS


class TenantNetworkField(ApiSerializer):
    egress = EgressField(required=False)


class ClaimInput(ApiSerializer):
    pool_id = LineField(max_length=63)
    config = ObjectField(required=False, allow_null=True)
    secrets = StringMapField(required=False, allow_null=True, write_only=True)
    metadata = ObjectField(required=False, allow_null=True)
    network = TenantNetworkField(
        required=False, allow_null=True, help_text="Narrows the pool's policy. A wider policy is 422."
    )
    ttl_ms = serializers.IntegerField(
        required=False, allow_null=True, min_value=1, max_value=MAX_TTL_MS,
        help_text="The tenant is released, with a save, this long after the claim, even if active. Default: never.",
    )  # fmt: skip
    wait = serializers.BooleanField(
        default=True,
        help_text="true: answer when the container is ready. false: answer 202 at once if it is not;"
        " `timeoutMs` then limits only the wait for a container, and the restore may take"
        " as long as it makes progress.",
    )
    command = CommandField(
        required=False,
        help_text="Run this in the new container; the answer has its result. Not with `wait: false`.",
    )
    script = serializers.CharField(
        required=False, trim_whitespace=False, help_text="In place of `command`: by `/bin/sh -c`."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        given = [name for name in ("command", "script") if name in attrs]
        if len(given) > 1:
            raise ValidationError({"command": [ErrorDetail("Give either command or script.", "invalid")]})
        if given and not attrs["wait"]:
            raise ValidationError({given[0]: [ErrorDetail("It needs wait: true.", "invalid")]})
        if given:
            words = attrs["command"] if "command" in attrs else [attrs["script"]]
            try:
                ExecInput().validate_command(words)
            except ValidationError as error:
                raise ValidationError({given[0]: error.detail}) from None
        return attrs


def first_command(claim: dict[str, Any]) -> commands.Wish | None:
    """The command of a claim's body, taken out of that."""
    words, script = claim.pop("command", None), claim.pop("script", None)
    return None if words is None and script is None else commands.Wish(command=tuple(words or ()), script=script)


class CommandErrorOutput(ApiSerializer):
    code = serializers.CharField()
    detail = serializers.CharField()


class FirstCommandOutput(FinishedCommandOutput):
    exit_code = serializers.IntegerField(allow_null=True)
    duration_ms = serializers.IntegerField(allow_null=True)
    via = serializers.ChoiceField(["agent", "engine"], allow_null=True)
    error = CommandErrorOutput(allow_null=True, help_text="Why there is no exit code: the claim holds all the same.")


class RestoredOutput(serializers.Serializer[Any]):
    files = serializers.IntegerField()
    bytes = serializers.IntegerField()


class ClaimOutput(ApiSerializer):
    tenant_id = serializers.CharField()
    pool_id = serializers.CharField()
    container_id = serializers.UUIDField()
    generation = serializers.IntegerField()
    state = serializers.ChoiceField(AssignmentState.choices)
    source = serializers.ChoiceField(Source.choices)  # type: ignore[assignment]
    endpoints = EndpointOutput(many=True)
    restored = RestoredOutput(allow_null=True)
    latency_ms = serializers.IntegerField()
    assigned_at = serializers.DateTimeField()
    ends_at = serializers.DateTimeField(allow_null=True, help_text="When the claim's `ttlMs` is over.")
    ignored = serializers.ListField(
        child=serializers.CharField(),
        required=False,
        help_text="Fields that differ from the existing claim and were not applied; `command`: it was not run.",
    )
    command = FirstCommandOutput(required=False, help_text="The result of the claim's `command` or `script`.")


class PendingOutput(ApiSerializer):
    tenant_id = serializers.CharField()
    pool_id = serializers.CharField()
    container_id = serializers.UUIDField(allow_null=True)
    generation = serializers.IntegerField()
    state = serializers.ChoiceField([AssignmentState.PENDING])
    deadline = serializers.DateTimeField(
        help_text="When the claim is given up if it makes no progress until then. Progress extends it."
    )
    ignored = serializers.ListField(child=serializers.CharField(), required=False)


def render_pending(assignment: Assignment, ignored: tuple[str, ...] = ()) -> dict[str, Any]:
    body = {
        "tenantId": assignment.tenant_id,
        "poolId": assignment.pool_id,
        "containerId": str(assignment.container_ref) if assignment.container_ref else None,
        "generation": assignment.generation,
        "state": assignment.state,
        "deadline": assignment.deadline,
    }
    return {**body, "ignored": list(ignored)} if ignored else body


def render_claim(assignment: Assignment, source: str, latency_ms: int, ignored: tuple[str, ...] = ()) -> dict[str, Any]:
    body = {
        "tenantId": assignment.tenant_id,
        "poolId": assignment.pool_id,
        "containerId": str(assignment.container_ref),
        "generation": assignment.generation,
        "state": assignment.state,
        "source": source,
        "endpoints": public_urls.added(assignment.endpoints, assignment.tenant.host_label),
        "restored": assignment.restored,
        "latencyMs": latency_ms,
        "assignedAt": assignment.assigned_at,
        "endsAt": assignment.ends_at,
    }
    return {**body, "ignored": list(ignored)} if ignored else body


class ReleaseInput(ApiSerializer):
    sync = serializers.BooleanField(required=False, allow_null=True, default=None)
    discard = serializers.BooleanField(default=False)


class ReleaseOutput(ApiSerializer):
    tenant_id = serializers.CharField()
    state = serializers.CharField(allow_null=True, help_text="null if the container is gone, otherwise releasing")


class HeldOutput(ApiSerializer):
    tenant_id = serializers.CharField()
    pool_id = serializers.CharField()
    container_id = serializers.UUIDField(allow_null=True)
    generation = serializers.IntegerField()
    state = serializers.ChoiceField(AssignmentState.choices)
    assigned_at = serializers.DateTimeField(allow_null=True)
    last_activity_at = serializers.DateTimeField(allow_null=True)


def render_held(assignment: Assignment) -> dict[str, Any]:
    return {
        "tenantId": assignment.tenant_id,
        "poolId": assignment.pool_id,
        "containerId": str(assignment.container_ref) if assignment.container_ref else None,
        "generation": assignment.generation,
        "state": assignment.state,
        "assignedAt": assignment.assigned_at,
        "lastActivityAt": assignment.last_activity_at,
    }


class ResolvedOutput(ApiSerializer):
    name = serializers.CharField()
    addresses = serializers.ListField(child=serializers.CharField(), help_text="The addresses that the name opens now.")
    problem = serializers.CharField(
        allow_blank=True, help_text="What is wrong with the last DNS answer; empty if nothing is."
    )


class NetworkOutput(ApiSerializer):
    mode = serializers.ChoiceField([(mode.value, mode.value) for mode in Mode])
    allow = serializers.ListField(child=serializers.CharField())
    is_own = serializers.BooleanField(help_text="Whether the tenant has a policy that narrows the pool's.")
    in_force = serializers.BooleanField(help_text="Whether the packet filter enforces it.")
    names = ResolvedOutput(many=True, help_text="The addresses that the names in the policy stand for.")


def render_network(assignment: Assignment) -> dict[str, Any]:
    container = assignment.container
    assert container is not None
    policy = container.narrowing or assignment.pool.policy
    return {
        **policy.to_json(),
        "isOwn": container.narrowing is not None,
        "inForce": container.egress_in_force >= container.egress_asked,
        "names": [asdict(name) for name in policy_names.known(policy.names)],
    }


class SyncErrorOutput(ApiSerializer):
    at = serializers.DateTimeField()
    run_id = serializers.UUIDField()
    code = serializers.CharField()
    detail = serializers.CharField()


class SyncStatusOutput(ApiSerializer):
    last_sync = serializers.DateTimeField(allow_null=True)
    age_ms = serializers.IntegerField(allow_null=True)
    pending = serializers.IntegerField()
    errors = SyncErrorOutput(many=True)  # type: ignore[assignment]


class RestoreProgressOutput(ApiSerializer):
    run_id = serializers.UUIDField()
    bytes = serializers.IntegerField()
    total_bytes = serializers.IntegerField()
    files = serializers.IntegerField()
    total_files = serializers.IntegerField()
    percent = serializers.FloatField(allow_null=True)
    bytes_per_second = serializers.IntegerField()
    eta_ms = serializers.IntegerField(allow_null=True)


class ClaimErrorOutput(ApiSerializer):
    at = serializers.DateTimeField()
    generation = serializers.IntegerField()
    code = serializers.CharField()
    detail = serializers.CharField()


class DeathOutput(ApiSerializer):
    at = serializers.DateTimeField()
    container_id = serializers.UUIDField()
    generation = serializers.IntegerField()
    exit_code = serializers.IntegerField(allow_null=True)
    signal = serializers.CharField(
        allow_null=True, help_text="The signal that the exit code stands for, such as SIGKILL."
    )
    detail = serializers.CharField()
    last_words = serializers.CharField(
        allow_null=True,
        allow_blank=True,
        help_text="The lines of the container's output that name the cause; null for role viewer.",
    )


class StatusOutput(ApiSerializer):
    assigned = serializers.BooleanField()
    state = serializers.ChoiceField(AssignmentState.choices, allow_null=True)
    container_id = serializers.UUIDField(allow_null=True)
    pool_id = serializers.CharField(allow_null=True)
    generation = serializers.IntegerField(allow_null=True)
    assigned_at = serializers.DateTimeField(allow_null=True)
    endpoints = EndpointOutput(many=True, help_text="While assigned: the ports of the tenant's container.")
    last_activity_at = serializers.DateTimeField(allow_null=True)
    release_due_at = serializers.DateTimeField(allow_null=True)
    ends_at = serializers.DateTimeField(allow_null=True, help_text="When the claim's `ttlMs` is over.")
    deadline = serializers.DateTimeField(
        allow_null=True, help_text="While pending: when the claim is given up if it makes no progress until then."
    )
    restore = RestoreProgressOutput(allow_null=True, help_text="While pending: the progress of the running restore.")
    claim_error = ClaimErrorOutput(
        allow_null=True, help_text="Why the tenant's last claim failed; kept until the tenant claims again."
    )
    last_death = DeathOutput(
        allow_null=True,
        help_text="How the container of the latest claim died, if it did.",
    )
    sync_status = SyncStatusOutput()


class TtlInput(ApiSerializer):
    ttl_ms = serializers.IntegerField(
        allow_null=True, min_value=0, max_value=MAX_TTL_MS, help_text="Counted from now. null: no end."
    )


class TtlOutput(ApiSerializer):
    tenant_id = serializers.CharField()
    ends_at = serializers.DateTimeField(allow_null=True)


class SyncInput(ApiSerializer):
    direction = serializers.ChoiceField(["outward", "inward", "both"])
