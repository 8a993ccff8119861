"""The serializer of an S3 sink."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError

from boilerhouse.api.serializers import KeyField, LineField
from syncing.sinks.flags import check_flag
from syncing.sinks.inputs import SinkInput, StoredSink, check_endpoint, location_path

BUCKET = re.compile(r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\Z")
REGION = re.compile(r"^(?![0-9]+\Z)(?!-)[A-Za-z0-9-]{1,60}(?<!-)\Z")


def _flag(value: str) -> None:
    if problem := check_flag(value):
        raise ValidationError(problem, code="flag")


def _bucket(value: str) -> None:
    if not BUCKET.match(value) or ".." in value:
        raise ValidationError("Not a valid bucket name.", code="invalid")


def _region(value: str) -> None:
    if not REGION.match(value):
        raise ValidationError("Use only letters, digits and -, such as eu-central-1.", code="invalid")


def _s3_endpoint(value: str) -> None:
    check_endpoint(value)
    if "_" in str(urlsplit(value).hostname):
        raise ValidationError("The host name must not contain _; S3 clients reject it.", code="invalid")


class S3SinkInput(SinkInput):
    type = serializers.ChoiceField(["s3"])
    bucket = LineField(validators=[_bucket])
    region = LineField(max_length=60, validators=[_region])
    prefix = LineField(default="", allow_blank=True, validators=[location_path])
    endpoint = LineField(required=False, allow_null=True, max_length=300, validators=[_s3_endpoint])
    provider = serializers.RegexField(r"^[A-Za-z0-9]{1,40}\Z", required=False, allow_null=True)
    access_key_id = KeyField(required=False, allow_null=True, max_length=200)
    secret_access_key = KeyField(required=False, allow_null=True, max_length=500, write_only=True)
    credential_id = LineField(required=False, allow_null=True, max_length=63)
    rclone_flags = serializers.ListField(child=LineField(validators=[_flag]), required=False, max_length=20)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        presence = [bool(attrs.get(name)) for name in ("access_key_id", "secret_access_key")]
        if attrs.get("credential_id"):
            if any(presence):
                detail = "Give credentialId or keys, not both."
                raise ValidationError({"credentialId": ErrorDetail(detail, "invalid")})
            return attrs
        if presence == [True, False] and self._keeps_secret(attrs):
            return attrs
        if any(presence) and not all(presence):
            missing = "secretAccessKey" if presence[0] else "accessKeyId"
            raise ValidationError({missing: ErrorDetail("Give both keys or neither.", "required")})
        if not any(presence) and not settings.BOILERHOUSE_S3_ENV_AUTH:
            detail = "Required: this deployment does not share the node's own credentials (BOILERHOUSE_S3_ENV_AUTH)."
            raise ValidationError({"accessKeyId": ErrorDetail(detail, "required")})
        return attrs

    def _keeps_secret(self, attrs: dict[str, Any]) -> bool:
        """Whether a PUT may keep the stored keys: never for another endpoint, which would see them used."""
        stored = self.stored
        if stored is None or not stored.sink_secrets:
            return False
        same = {"accessKeyId": "access_key_id", "endpoint": "endpoint", "bucket": "bucket"}
        return all((stored.sink.get(key) or None) == (attrs.get(name) or None) for key, name in same.items())

    def take(self) -> StoredSink:
        names = ("type", "bucket", "region", "prefix", "endpoint", "provider", "access_key_id", "credential_id")
        data, secrets = self.validated_data, None
        if data.get("secret_access_key"):
            secrets = {"accessKeyId": data["access_key_id"], "secretAccessKey": data["secret_access_key"]}
        elif data.get("access_key_id") and self.stored is not None:
            secrets = self.stored.sink_secrets
        return StoredSink(self._public_fields(*names, "rclone_flags"), secrets, data.get("credential_id") or None)
