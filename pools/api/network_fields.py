"""Serializers of network policies."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError

from boilerhouse.api.serializers import ApiSerializer, LineField, nested
from boilerhouse.core.errors import FieldError
from pools.api.engine_fields import ResolversField
from pools.egress import MAX_ENTRIES, BadEntry, Egress, Entry, Mode

MAX_ENTRY = 260
"""A host's name with its port."""


class EgressField(ApiSerializer):
    """Where containers may send packets."""

    default_mode = Mode.LIST

    mode = serializers.ChoiceField(
        [(mode.value, mode.value) for mode in Mode],
        required=False,
        help_text="none: no packet leaves. list: only entries of allow. internet: public addresses,"
        " DNS, and entries of allow. open: everything except the node itself, other"
        " containers and metadata services.",
    )
    allow = serializers.ListField(
        child=LineField(max_length=MAX_ENTRY),
        required=False,
        max_length=MAX_ENTRIES,
        help_text="An address, address:port, range, range:port, or, with mode list, host.name:port."
        " Names open only public addresses. IPv6 entries, such as 2001:db8::/32 or"
        " [2001:db8::1]:443, are allowed if the deployment's containers have IPv6.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        mode = Mode(attrs.get("mode", self.default_mode))
        entries, wrong = [], dict[str, Any]()
        for index, text in enumerate(attrs.get("allow", ())):
            try:
                entries.append(Entry.parse(text))
            except BadEntry as error:
                wrong[str(index)] = [ErrorDetail(str(error), "invalid")]
        if wrong:
            raise ValidationError({"allow": wrong})
        policy = Egress(mode, tuple(entries))
        errors = policy.errors()
        if mode == Mode.OPEN and not settings.BOILERHOUSE_ALLOW_OPEN_NETWORK:
            detail = "This deployment does not allow this mode (BOILERHOUSE_ALLOW_OPEN_NETWORK)."
            errors.append(FieldError("/mode", detail, "not_allowed"))
        if not settings.BOILERHOUSE_IPV6_SUBNET:
            detail = "This deployment's containers have no IPv6 (BOILERHOUSE_IPV6_SUBNET)."
            errors += [
                FieldError(f"/allow/{index}", detail, "no_ipv6") for index, entry in enumerate(entries) if entry.is_ipv6
            ]
        if errors:
            raise ValidationError(nested(errors, ""))
        return Egress(mode, tuple(dict.fromkeys(entries))).to_json()


class PoolEgressField(EgressField):
    default_mode = Mode.INTERNET


class PoolNetworkField(ApiSerializer):
    name = LineField(max_length=63, required=False)
    dns = ResolversField(required=False)
    egress = PoolEgressField(
        required=False, help_text="Where the pool's containers may send packets; default: mode internet."
    )

    def validate_name(self, value: str) -> str:
        raise ValidationError("This deployment allows only its own network.", code="not_allowed")
