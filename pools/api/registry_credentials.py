"""Serializers of registry credentials: write-only secrets, selected by an image's name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError

from boilerhouse.api.serializers import ApiSerializer, LineField
from boilerhouse.core.errors import FieldError, Invalid
from pools import references, registry_credentials, registry_logins
from pools.api.serializers import IdField
from pools.models import RegistryCredential
from pools.references import DEFAULT_REGISTRY

HOST = r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?|\[[0-9A-Fa-f:]+\](:[0-9]{1,5})?"
PLACE = re.compile(rf"({HOST})(/[a-z0-9]+([._-]+[a-z0-9]+)*)*\Z")
MAX_SECRET = 16_384
"""Cloud tokens, and service account keys used as passwords, are a few thousand characters long."""


def _registry_of(place: str) -> str:
    """Where an image lies whose name begins with the place; empty where no image is named so."""
    try:
        return references.parse(f"{place}/image").registry
    except references.InvalidReference:
        return ""


class SecretField(serializers.CharField):
    """A secret of any form, including newlines; never shown."""

    def __init__(self, **options: Any) -> None:
        super().__init__(max_length=MAX_SECRET, write_only=True, trim_whitespace=False, **options)


class RegistryCredentialInput(ApiSerializer):
    """A user name with a password or access token, or an identity token alone."""

    read_only_ignored = frozenset({"usedBy", "createdAt", "updatedAt"})

    id = IdField(required=False)
    name = LineField(max_length=200, required=False)
    registry = LineField(
        max_length=300,
        help_text="The host as images name it, such as `registry.example.com:5000`,"
        " optionally with a path, such as `ghcr.io/acme`",
    )
    username = LineField(max_length=255, required=False, allow_null=True)
    password = SecretField(required=False)
    identity_token = SecretField(required=False)

    def validate_registry(self, value: str) -> str:
        if "://" in value:
            raise ValidationError("Write the registry as images name it, without https:// or http://.", code="invalid")
        if not PLACE.match(value):
            detail = "Give a host, with a port if it has one, and optionally a path below it: ghcr.io/acme."
            raise ValidationError(detail, code="invalid")
        host, slash, path = value.partition("/")
        if _registry_of(value) != host:
            detail = f"Images with this name are at Docker Hub; write {DEFAULT_REGISTRY}/{value}."
            raise ValidationError(detail, code="invalid")
        return f"{registry_logins.registry_name(host)}{slash}{path}"

    def validate_username(self, value: str | None) -> str | None:
        if value and ":" in value:
            raise ValidationError("A user name cannot contain a colon.", code="invalid")
        return value

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        has_token, has_password = "identity_token" in attrs, "password" in attrs
        wrong: dict[str, ErrorDetail] = {}
        if has_token and has_password:
            wrong["identityToken"] = ErrorDetail("Give password or identityToken, not both.", "invalid")
        elif not has_token and not has_password:
            wrong["password"] = ErrorDetail("Give a password, or an identityToken instead.", "required")
        elif has_password and not attrs.get("username"):
            wrong["username"] = ErrorDetail("A password requires a user name.", "required")
        elif has_token and attrs.get("username"):
            wrong["username"] = ErrorDetail("An identity token takes no user name or password.", "invalid")
        if wrong:
            raise ValidationError(wrong)
        return attrs


class RegistryCredentialOutput(ApiSerializer):
    id = serializers.CharField()
    name = serializers.CharField()
    registry = serializers.CharField()
    username = serializers.CharField(allow_null=True, help_text="null for an identity token")
    used_by = serializers.ListField(
        child=serializers.CharField(), help_text="Workloads whose images this credential applies to"
    )
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


def render_registry_credential(credential: RegistryCredential, used_by: Sequence[str]) -> dict[str, Any]:
    return {
        "id": credential.pk,
        "name": credential.name,
        "registry": credential.registry,
        "username": credential.secret.get("username"),
        "usedBy": list(used_by),
        "createdAt": credential.created_at,
        "updatedAt": credential.updated_at,
    }


def find_and_render(credential_id: str) -> dict[str, Any]:
    """Raises RegistryCredentialNotFound."""
    credential = registry_credentials.find(credential_id)
    return render_registry_credential(credential, registry_credentials.users().get(credential.pk, []))


def secret_of(data: dict[str, Any]) -> dict[str, str]:
    """The stored values for a validated body."""
    if "identity_token" in data:
        return {"identityToken": data["identity_token"]}
    return {"username": data["username"], "password": data["password"]}


def same_registry(data: dict[str, Any], credential: RegistryCredential) -> None:
    if data["registry"] != credential.registry:
        detail = f"The registry of a credential cannot change (it is {credential.registry}). Store another credential."
        raise Invalid(FieldError("/registry", detail, "fixed"))
