"""The serializer of a sink in Azure Blob Storage."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError

from boilerhouse.api.serializers import KeyField, LineField
from syncing.sinks.inputs import KeyedSinkInput, check_endpoint, location_path

ACCOUNT = re.compile(r"^[a-z0-9]{3,24}\Z")
CONTAINER = re.compile(r"^(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]\Z")


def _account(value: str) -> None:
    if not ACCOUNT.match(value):
        raise ValidationError("Use 3 to 24 lower case letters and digits.", code="invalid")


def _container(value: str) -> None:
    if not CONTAINER.match(value):
        raise ValidationError("Not a valid container name.", code="invalid")


def _key(value: str) -> None:
    from syncing.sinks.azure_access import is_key

    if value and not is_key(value):
        raise ValidationError("Must be an account's key in base64.", code="invalid")


class AzureBlobSinkInput(KeyedSinkInput):
    secret_fields: ClassVar[tuple[str, ...]] = ("account_key",)
    bound_to: ClassVar[tuple[str, ...]] = ("account", "container", "endpoint")

    type = serializers.ChoiceField(["azureblob"])
    account = LineField(max_length=24, validators=[_account])
    container = LineField(max_length=63, validators=[_container])
    prefix = LineField(default="", allow_blank=True, validators=[location_path])
    endpoint = LineField(required=False, allow_null=True, max_length=300, validators=[check_endpoint])
    account_key = KeyField(required=False, allow_null=True, max_length=500, write_only=True, validators=[_key])

    def validate_endpoint(self, value: str | None) -> str | None:
        return value.rstrip("/") if value else value

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if not self.secrets_of(attrs):
            raise ValidationError({"accountKey": ErrorDetail("Give the account's key.", "required")})
        return attrs
