"""The serializer of an SFTP sink."""

from __future__ import annotations

import posixpath
import re
from typing import Any, ClassVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError

from boilerhouse.api.serializers import LineField
from syncing import locations
from syncing.sinks.inputs import KeyedSinkInput, check_host

ALGORITHMS = (
    "ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa",
)  # fmt: skip
USER = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.@+\\-]{0,63}\Z")


def _host_key(value: str) -> None:
    name, _, text = value.partition(" ")
    try:
        if name not in ALGORITHMS or " " in text:
            raise ValueError(name)
        load_ssh_public_key(value.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        detail = f"Give the algorithm ({', '.join(ALGORITHMS)}), a space, and the key in base64."
        raise ValidationError(detail, code="invalid") from error


def _user(value: str) -> None:
    if not USER.match(value):
        raise ValidationError("Not a user's name.", code="invalid")


class PrivateKeyField(serializers.CharField):
    """A private key in PEM, whose lines may have been lost in a form."""

    def to_internal_value(self, data: Any) -> str:
        from syncing.sinks.sftp_access import private_key

        text: str = super().to_internal_value(data)
        try:
            return private_key(text) if text else ""
        except ValueError as error:
            detail = "Must be a private key in PEM: Ed25519, ECDSA or RSA, without a passphrase."
            raise ValidationError(detail, code="invalid") from error


class SftpSinkInput(KeyedSinkInput):
    secret_fields: ClassVar[tuple[str, ...]] = ("password", "private_key")
    # Not the path, which the same account may read anyway; but the keys, by which another server could read a password.
    bound_to: ClassVar[tuple[str, ...]] = ("host", "port", "user", "host_keys")

    type = serializers.ChoiceField(["sftp"])
    host = LineField(max_length=253, validators=[check_host])
    port = serializers.IntegerField(min_value=1, max_value=65535, default=22)
    user = LineField(max_length=64, validators=[_user])
    path = LineField(max_length=300)
    host_keys = serializers.ListField(
        child=LineField(max_length=1500, validators=[_host_key]), min_length=1, max_length=8
    )
    password = LineField(required=False, allow_null=True, max_length=500, write_only=True, trim_whitespace=False)
    private_key = PrivateKeyField(required=False, allow_null=True, allow_blank=True, max_length=20_000, write_only=True)

    def validate_path(self, value: str) -> str:
        if not value.startswith("/") or value != posixpath.normpath(value) or value.startswith("//"):
            raise ValidationError("Give an absolute path, without .. or //.", code="invalid")
        if value != "/" and (problem := locations.check_path(value.strip("/"))):
            raise ValidationError(problem, code="path")
        if "$" in value:
            raise ValidationError("No ${tenantId} here: put it into the mapping's path.", code="invalid")
        return value

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs.get("password") and attrs.get("private_key"):
            raise ValidationError({"privateKey": ErrorDetail("Give a password or a key, not both.", "invalid")})
        if not self.secrets_of(attrs):
            raise ValidationError({"password": ErrorDetail("Give a password or a private key.", "required")})
        return attrs
