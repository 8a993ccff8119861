"""Serializers of machines that join, and of the tokens for it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.core.validators import RegexValidator
from django.utils import timezone
from rest_framework import serializers

from boilerhouse.api.serializers import ApiSerializer, LineField
from boilerhouse.core import node_tokens
from boilerhouse.core.ids import NODE_ID
from boilerhouse.core.models import NodeToken

MAX_REQUEST = 8192


def _ms(delta: timedelta) -> int:
    return round(delta.total_seconds() * 1000)


class NodeTokenInput(ApiSerializer):
    ttl_ms = serializers.IntegerField(
        min_value=_ms(node_tokens.MIN_TTL), max_value=_ms(node_tokens.MAX_TTL), default=_ms(node_tokens.DEFAULT_TTL),
        help_text="How long it can be used.",
    )  # fmt: skip


class NodeTokenOutput(ApiSerializer):
    id = serializers.CharField()
    created_at = serializers.DateTimeField()
    created_by = serializers.CharField(help_text="Who made it, as in events.")
    expires_at = serializers.DateTimeField()
    used_at = serializers.DateTimeField(allow_null=True)
    used_by = serializers.CharField(help_text="The node that joined with it.")


class NewNodeTokenOutput(NodeTokenOutput):
    token = serializers.CharField(help_text="Shown only here.")


def render_token(row: NodeToken) -> dict[str, Any]:
    body: dict[str, Any] = NodeTokenOutput(row).data
    return body


class NodeJoinInput(ApiSerializer):
    token = LineField(max_length=200)
    node_id = LineField(max_length=64, validators=[RegexValidator(NODE_ID)])
    name = LineField(max_length=64)
    deployment_id = LineField(max_length=16, help_text="As the machine's database says.")
    version = LineField(max_length=40, help_text="The machine's release of Boilerhouse.")
    time = serializers.DateTimeField(help_text="By the machine's clock.")
    certificate_request = serializers.CharField(max_length=MAX_REQUEST, trim_whitespace=False, help_text="In PEM.")

    def validate_time(self, value: datetime) -> datetime:
        return value if timezone.is_aware(value) else timezone.make_aware(value)


class NodeMembershipOutput(ApiSerializer):
    """With it, a machine is a node of the deployment and knows its secrets."""

    deployment_id = serializers.CharField()
    authority = serializers.CharField(help_text="The certificate of the deployment's authority, in PEM.")
    certificate = serializers.CharField(help_text="The node's certificate, in PEM.")
    secret_key = serializers.CharField()
    key_pepper = serializers.CharField()
    encryption_keys = serializers.ListField(child=serializers.CharField())
    are_keys_given = serializers.BooleanField(help_text="Whether the environment sets the encryption keys.")
