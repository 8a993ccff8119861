"""The serializer of a sink in Google Cloud Storage."""

from __future__ import annotations

import json
import re
from typing import Any, ClassVar

from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError

from boilerhouse.api.serializers import LineField
from syncing.sinks.inputs import KeyedSinkInput, check_endpoint, location_path

BUCKET = re.compile(r"^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]\Z")
EMAIL = re.compile(r"^[A-Za-z0-9._%+-]{1,200}@[A-Za-z0-9.-]{1,200}\Z")
KEY_ID = re.compile(r"^[A-Za-z0-9_-]{0,100}\Z")
UNIVERSE = "googleapis.com"


def _bucket(value: str) -> None:
    if not BUCKET.match(value) or ".." in value:
        raise ValidationError("Not a valid bucket name.", code="invalid")


class ServiceAccountKeyField(serializers.CharField):
    """The JSON document of a service account's key. Only what identifies the account is kept."""

    def to_internal_value(self, data: Any) -> str:
        from syncing.sinks.gcs_access import private_key

        text: str = super().to_internal_value(data)
        if not text:
            return ""
        try:
            document = json.loads(text)
            if document["type"] != "service_account":
                raise ValueError("another kind of credential")
            fields = {name: str(document.get(name) or "") for name in ("client_email", "private_key_id", "private_key")}
            if not EMAIL.match(fields["client_email"]) or not KEY_ID.match(fields["private_key_id"]):
                raise ValueError("no such account")
            private_key(fields["private_key"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            detail = "Must be the JSON file of a service account's key, with client_email and private_key."
            raise ValidationError(detail, code="invalid") from error
        if document.get("universe_domain", UNIVERSE) != UNIVERSE:
            raise ValidationError(f"Only accounts of {UNIVERSE} are supported.", code="invalid")
        return json.dumps({"type": "service_account", **fields})


class GcsSinkInput(KeyedSinkInput):
    secret_fields: ClassVar[tuple[str, ...]] = ("service_account_key",)
    # Another endpoint could ask the account for tokens, and another bucket may be one that the account can read but the
    # author of the change cannot.
    bound_to: ClassVar[tuple[str, ...]] = ("bucket", "endpoint")

    type = serializers.ChoiceField(["gcs"])
    bucket = LineField(max_length=222, validators=[_bucket])
    prefix = LineField(default="", allow_blank=True, validators=[location_path])
    endpoint = LineField(required=False, allow_null=True, max_length=300, validators=[check_endpoint])
    service_account_key = ServiceAccountKeyField(
        required=False, allow_null=True, allow_blank=True, max_length=20_000, write_only=True
    )

    def validate_endpoint(self, value: str | None) -> str | None:
        return value.rstrip("/") if value else value

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if not self.secrets_of(attrs):
            raise ValidationError({"serviceAccountKey": ErrorDetail("Give the service account's key.", "required")})
        return attrs
