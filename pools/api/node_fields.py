"""Serializers of nodes."""

from __future__ import annotations

import re
from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError

from boilerhouse.api.serializers import ApiSerializer, LineField, NumberField, StringMapField
from boilerhouse.core.models import Node
from boilerhouse.core.states import NodeState
from pools.capacity import Promised

LABEL = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?\Z")
MAX_LABELS = 50
MAX_VALUE = 200
OVERCOMMIT = (0.1, 1000.0)
MOST_AFTER_MS = 30 * 86_400_000


class LabelsField(StringMapField):
    """At most 50 names and their values."""

    child = LineField(allow_blank=True, max_length=MAX_VALUE)

    def to_internal_value(self, data: Any) -> dict[str, str]:
        labels: dict[str, str] = super().to_internal_value(data)
        if wrong := [name for name in labels if not LABEL.match(name)]:
            detail = "Use up to 63 letters, digits, dots, slashes, dashes and underscores."
            raise ValidationError({name: [ErrorDetail(detail, "invalid")] for name in wrong})
        if len(labels) > MAX_LABELS:
            raise ValidationError(f"At most {MAX_LABELS} are allowed.", "too_many")
        return labels


class PromisedOutput(ApiSerializer):
    """What the node's containers may use together."""

    containers = serializers.IntegerField()
    cpus = serializers.FloatField()
    memory_mb = serializers.IntegerField()


class NodeOutput(ApiSerializer):
    id = serializers.CharField()
    name = serializers.CharField(help_text="The machine's name.")
    state = serializers.ChoiceField(
        NodeState.choices,
        help_text="silent: no heartbeat of a worker there; its work waits, and it gets none. lost:"
        " given up; its tenants claim elsewhere.",
    )
    epoch = serializers.IntegerField(help_text="How often it was declared lost.")
    lost_at = serializers.DateTimeField(allow_null=True, help_text="When it was last declared lost.")
    lost_by = serializers.CharField(help_text="Who declared that, as in events.")
    lost_reason = serializers.CharField()
    cordoned = serializers.BooleanField(source="is_cordoned", help_text="Whether it gets no new containers.")
    cordoned_at = serializers.DateTimeField(allow_null=True)
    cordoned_by = serializers.CharField(help_text="Who cordoned it, as in events.")
    cordon_reason = serializers.CharField()
    drains_at = serializers.DateTimeField(
        allow_null=True, help_text="From when its tenants are released; null: it is not drained."
    )
    drained_at = serializers.DateTimeField(allow_null=True, help_text="When it had no container any more.")
    labels = StringMapField()
    overcommit = serializers.FloatField(
        allow_null=True,
        help_text="Its containers may be promised this multiple of its memory and processors; null: any amount.",
    )
    promised = PromisedOutput()
    heartbeat_at = serializers.DateTimeField(help_text="The last heartbeat of a worker there.")
    leased_at = serializers.DateTimeField(
        allow_null=True, help_text="When its fence last renewed its lease; null: it has no fence."
    )
    address = serializers.CharField(help_text="Where it listens for other nodes; empty: it does not.")
    joined_at = serializers.DateTimeField(
        allow_null=True, help_text="When it last joined by a token; null: it has been there from the beginning."
    )
    certificate_expires_at = serializers.DateTimeField(
        allow_null=True, help_text="It is renewed ten days before; null: the node has no certificate."
    )
    version = serializers.CharField(
        help_text="The Boilerhouse release of its worker. This and the following are what the worker last reported."
    )
    arch = serializers.CharField()
    cpus = serializers.IntegerField(allow_null=True)
    memory_mb = serializers.IntegerField(allow_null=True)
    disk_mb = serializers.IntegerField(allow_null=True)
    disk_free_mb = serializers.IntegerField(allow_null=True)
    runtimes = serializers.ListField(child=serializers.CharField())
    engine_version = serializers.CharField()
    engine_error = serializers.CharField(help_text="Why the engine did not answer; empty if it did.")
    reported_at = serializers.DateTimeField(allow_null=True)
    created_at = serializers.DateTimeField()


class NodeInput(ApiSerializer):
    """Takes the full object. What a worker reports cannot be set."""

    read_only_ignored = frozenset(NodeOutput().fields) - {"labels", "overcommit"}

    labels = LabelsField(default=dict)
    overcommit = NumberField(default=None, allow_null=True, min_value=OVERCOMMIT[0], max_value=OVERCOMMIT[1])


class CordonInput(ApiSerializer):
    reason = LineField(default="", allow_blank=True, max_length=500, help_text="Shown to operators.")


class DrainInput(ApiSerializer):
    after_ms = serializers.IntegerField(
        default=0,
        min_value=0,
        max_value=MOST_AFTER_MS,
        help_text="How long its tenants may go on before they are released.",
    )
    reason = LineField(default="", allow_blank=True, max_length=500, help_text="Shown to operators.")


class LostInput(ApiSerializer):
    is_off = serializers.BooleanField(
        default=False, help_text="None of its containers runs; somebody has seen to that."
    )
    reason = LineField(default="", allow_blank=True, max_length=500, help_text="Shown to operators.")


def render_node(node: Node, promised: Promised) -> dict[str, Any]:
    node.promised = promised  # type: ignore[attr-defined]
    body: dict[str, Any] = NodeOutput(node).data
    return body
