"""Common parts of the sink serializers: how the API reads a spec's ``sink``, with write-only secrets."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from rest_framework.exceptions import ValidationError

from boilerhouse.api.serializers import ApiSerializer, camel
from syncing import locations

if TYPE_CHECKING:
    from syncing.models import SyncSpec

ENDPOINT = re.compile(
    r"^(?i:https?)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?(/[A-Za-z0-9._~!$&'()*+,;=:@/-]*)?\Z"
)
LABEL = re.compile(r"^(?!-)[A-Za-z0-9_-]{1,63}(?<!-)\Z")


@dataclass(frozen=True, slots=True)
class StoredSink:
    """A validated sink, divided into public values and secrets."""

    public: dict[str, Any]
    secrets: dict[str, Any] | None = None
    credential_id: str | None = None


def location_path(value: str) -> None:
    if problem := locations.check_path(value):
        raise ValidationError(problem, code="path")


def check_endpoint(value: str) -> None:
    if not _is_endpoint(value):
        detail = "Must be http(s)://host[:port], optionally with a plain path, without credentials."
        raise ValidationError(detail, code="invalid")


def _is_endpoint(value: str) -> bool:
    """Whether all clients parse it the same way: anything else must not be stored."""
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
    return _is_name(parts.hostname)


def _is_name(host: str) -> bool:
    host = host.removesuffix(".")
    return len(host) <= 253 and all(LABEL.match(label) for label in host.split("."))


def check_host(value: str) -> None:
    """A name, or an address without brackets."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        if not _is_name(value):
            raise ValidationError("Give a host's name or address.", code="invalid") from None


class SinkInput(ApiSerializer):
    # One kind's ``sink``. A subclass has a field ``type`` with the kind's name as its only choice. (A docstring would
    # be in the API's schema, as that of every kind.)

    @property
    def stored(self) -> SyncSpec | None:
        """The spec that a PUT replaces."""
        return self.context.get("stored")

    def take(self) -> StoredSink:
        """The validated sink. Secrets that a PUT leaves out are those of the stored spec."""
        raise NotImplementedError

    def _public_fields(self, *names: str) -> dict[str, Any]:
        data = self.validated_data
        return {camel(name): data[name] for name in names if data.get(name) is not None}


class KeyedSinkInput(SinkInput):
    # A kind whose secrets are plain write-only fields. A PUT that gives none of them keeps those that are stored, but
    # not where it changes who would be shown them.
    secret_fields: ClassVar[tuple[str, ...]]
    bound_to: ClassVar[tuple[str, ...]]

    def secrets_of(self, attrs: Mapping[str, Any]) -> dict[str, Any]:
        """The submitted secrets, otherwise the stored ones if they may be kept."""
        secrets = {camel(name): attrs[name] for name in self.secret_fields if attrs.get(name)}
        if secrets or self.stored is None or self.stored.sink.get("type") != attrs["type"]:
            return secrets
        same = all((self.stored.sink.get(camel(name)) or None) == (attrs.get(name) or None) for name in self.bound_to)
        return dict(self.stored.sink_secrets or {}) if same else {}

    def take(self) -> StoredSink:
        names = [name for name in self._declared_fields if name not in self.secret_fields]
        return StoredSink(self._public_fields(*names), self.secrets_of(self.validated_data) or None)


InputClass = type[SinkInput]
"""Under another name than ``type``, which the kinds use for their own."""
