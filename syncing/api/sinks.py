"""A spec's sink as the API takes it: one shape per kind, secrets write-only."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from drf_spectacular.utils import PolymorphicProxySerializer, extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError

from boilerhouse.api.serializers import ApiSerializer, KeyField, LineField, camel
from pools.api.serializers import PathField
from syncing import locations
from syncing.models import SyncSpec
from syncing.sinks.flags import check_flag
from syncing.sinks.local import local_root

BUCKET = re.compile(r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\Z")
REGION = re.compile(r"^(?![0-9]+\Z)(?!-)[A-Za-z0-9-]{1,60}(?<!-)\Z")
ENDPOINT = re.compile(
    r"^(?i:https?)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?(/[A-Za-z0-9._~!$&'()*+,;=:@/-]*)?\Z"
)
LABEL = re.compile(r"^(?!-)[A-Za-z0-9_-]{1,63}(?<!-)\Z")
HEADER_NAME = re.compile(r"^[A-Za-z0-9-]{1,64}\Z")
HEADER_VALUE = re.compile(r"^[ -~]{1,4000}\Z")
OWN_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection", "destination", "depth"})


@dataclass(frozen=True, slots=True)
class StoredSink:
    """A validated sink, taken apart into what is shown and what is not."""

    shown: dict[str, Any]
    secrets: dict[str, Any] | None = None
    credential_id: str | None = None


def location_path(value: str) -> None:
    if problem := locations.check_path(value):
        raise ValidationError(problem, code="path")


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
    _endpoint(value)
    if "_" in str(urlsplit(value).hostname):
        raise ValidationError("The host name must not contain _; S3 clients reject it.", code="invalid")


def _endpoint(value: str) -> None:
    if not _is_endpoint(value):
        detail = "Must be http(s)://host[:port], optionally with a plain path, without credentials."
        raise ValidationError(detail, code="invalid")


def _is_endpoint(value: str) -> bool:
    """Whether every client understands it alike: what one of them cannot read must not be stored."""
    if not ENDPOINT.match(value):
        return False
    try:
        parts = urlsplit(value)
        if parts.port == 0 or not parts.hostname:
            return False
        if parts.netloc.startswith("["):
            ipaddress.IPv6Address(parts.hostname)
            return True
    except ValueError:  # brackets, numbers of ports
        return False
    host = parts.hostname.removesuffix(".")
    return len(host) <= 253 and all(LABEL.match(label) for label in host.split("."))


class _KindOfSink(ApiSerializer):
    @property
    def stored(self) -> SyncSpec | None:
        """The spec that a PUT replaces."""
        return self.context.get("stored")

    def take(self) -> StoredSink:
        raise NotImplementedError

    def _shown(self, *names: str) -> dict[str, Any]:
        data = self.validated_data
        return {camel(name): data[name] for name in names if data.get(name) is not None}


class S3SinkInput(_KindOfSink):
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
        given = [bool(attrs.get(name)) for name in ("access_key_id", "secret_access_key")]
        if attrs.get("credential_id"):
            if any(given):
                detail = "Give credentialId or keys, not both."
                raise ValidationError({"credentialId": ErrorDetail(detail, "invalid")})
            return attrs
        if given == [True, False] and self._keeps_secret(attrs):
            return attrs
        if any(given) and not all(given):
            missing = "secretAccessKey" if given[0] else "accessKeyId"
            raise ValidationError({missing: ErrorDetail("Give both keys or neither.", "required")})
        if not any(given) and not settings.BOILERHOUSE_S3_ENV_AUTH:
            detail = "Required: this deployment does not share the node's own credentials (BOILERHOUSE_S3_ENV_AUTH)."
            raise ValidationError({"accessKeyId": ErrorDetail(detail, "required")})
        return attrs

    def _keeps_secret(self, attrs: dict[str, Any]) -> bool:
        """Whether a PUT leaves the keys as stored: never for another endpoint, which would be shown their use."""
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
        return StoredSink(self._shown(*names, "rclone_flags"), secrets, data.get("credential_id") or None)


class LocalSinkInput(_KindOfSink):
    type = serializers.ChoiceField(["local"])
    path = PathField()

    def validate_path(self, value: str) -> str:
        root = local_root()
        if root is None:
            detail = "This deployment allows no local sinks (BOILERHOUSE_LOCAL_SINK_ROOT)."
            raise ValidationError(detail, code="not_allowed")
        if ".." in value.split("/") or not (Path(value) == root or Path(value).is_relative_to(root)):
            raise ValidationError(f"Must be below {root}.", code="not_allowed")
        if Path(value) != root and (problem := locations.check_path(str(Path(value).relative_to(root)))):
            raise ValidationError(problem, code="path")
        return str(Path(value))

    def take(self) -> StoredSink:
        return StoredSink(self._shown("type", "path"))


class HeadersField(serializers.DictField):
    """Header names with their values; the values are write-only and shown as null."""

    child = serializers.CharField(allow_null=True, trim_whitespace=False)


class HttpSinkInput(_KindOfSink):
    type = serializers.ChoiceField(["http"])
    endpoint = LineField(max_length=300, validators=[_endpoint])
    headers = HeadersField(required=False)

    def validate_endpoint(self, value: str) -> str:
        if ".." in value.split("/") or "%" in value or "//" in value.partition("://")[2]:
            raise ValidationError("Must be a plain path, without .., // or %.", code="invalid")
        if {locations.MARKER_ROOT, locations.BACKUP_ROOT} & set(value.split("/")):
            detail = f"{locations.MARKER_ROOT} and {locations.BACKUP_ROOT} are reserved."
            raise ValidationError(detail, code="invalid")
        return value.rstrip("/")

    def validate_headers(self, value: dict[str, str | None]) -> dict[str, str | None]:
        wrong: dict[str, ErrorDetail] = {}
        for name, text in value.items():
            if not HEADER_NAME.match(name) or name.lower() in OWN_HEADERS:
                wrong[name] = ErrorDetail("This header cannot be set.", "invalid")
            elif text is not None and not HEADER_VALUE.match(text):
                wrong[name] = ErrorDetail("Use only printable ASCII, at most 4,000 characters.", "invalid")
        if wrong:
            raise ValidationError(wrong)
        return value

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        kept = self._stored_headers(attrs["endpoint"])
        for name, value in (attrs.get("headers") or {}).items():
            if value is None and name not in kept:
                raise ValidationError({"headers": {name: ErrorDetail("A value is required.", "required")}})
        return attrs

    def _stored_headers(self, endpoint: str) -> dict[str, str]:
        """Values that a PUT leaves as they are: never for another endpoint, which would be shown them."""
        stored = self.stored
        if stored is None or stored.sink.get("endpoint") != endpoint or not stored.sink_secrets:
            return {}
        return dict(stored.sink_secrets.get("headers") or {})

    def take(self) -> StoredSink:
        given = self.validated_data.get("headers") or {}
        kept = self._stored_headers(self.validated_data["endpoint"])
        headers = {name: kept[name] if value is None else value for name, value in given.items()}
        shown = {**self._shown("type", "endpoint"), "headers": dict.fromkeys(sorted(given))}
        return StoredSink(shown, {"headers": headers} if headers else None)


KINDS: dict[str, type[_KindOfSink]] = {"s3": S3SinkInput, "local": LocalSinkInput, "http": HttpSinkInput}


@extend_schema_field(PolymorphicProxySerializer("Sink", dict(KINDS), "type"))
class SinkField(serializers.Field[StoredSink, Any, Any, Any]):
    """Any kind of sink; validates to a StoredSink."""

    def to_internal_value(self, data: Any) -> StoredSink:
        if not isinstance(data, dict):
            raise ValidationError("Must be an object.", code="invalid")
        kind = KINDS.get(str(data.get("type")))
        if kind is None:
            detail = f"Must be one of {', '.join(KINDS)}."
            raise ValidationError({"type": ErrorDetail(detail, "invalid_choice" if "type" in data else "required")})
        body = kind(data=data, context=self.context)
        body.is_valid(raise_exception=True)
        return body.take()

    def to_representation(self, value: Any) -> Any:
        return value
