"""Serializers of credentials: write-only secrets that sync specs refer to."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from boilerhouse.api.serializers import ApiSerializer, KeyField, LineField
from pools.api.serializers import IdField
from syncing.models import Credential


class CredentialInput(ApiSerializer):
    read_only_ignored = frozenset({"usedBy", "createdAt"})

    id = IdField(required=False)
    name = LineField(max_length=200)
    access_key_id = KeyField(max_length=200)
    secret_access_key = KeyField(max_length=500, write_only=True, trim_whitespace=False)


class CredentialOutput(ApiSerializer):
    id = serializers.CharField()
    name = serializers.CharField()
    access_key_id = serializers.CharField()
    used_by = serializers.ListField(child=serializers.CharField())
    created_at = serializers.DateTimeField()


def render_credential(credential: Credential) -> dict[str, Any]:
    return {
        "id": credential.pk,
        "name": credential.name,
        "accessKeyId": credential.secret["accessKeyId"],
        "usedBy": sorted(spec.pk for spec in credential.syncspec_set.all()),
        "createdAt": credential.created_at,
    }
