"""Workload fields for the user of the processes."""

from __future__ import annotations

import re
from typing import Any

from django.conf import settings
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError

from boilerhouse.api.serializers import ApiSerializer, LineField
from boilerhouse.core import deployment_settings
from pools import mounts

MAX_ID = 2**31 - 2
MAX_GROUPS = 32
NAME = r"[a-z_][a-z0-9_-]{0,31}"


def a_uid(value: int | None) -> None:
    """A uid that all containers of a workload may have."""
    if value == 0 and not deployment_settings.current().allow_root:
        raise ValidationError("This deployment does not allow root (BOILERHOUSE_ALLOW_ROOT).", code="not_allowed")
    a_gid(value)


def a_gid(value: int | None) -> None:
    """A number that is not assigned to a single container; 0 as a group does not make root."""
    low, high = settings.BOILERHOUSE_UID_RANGE
    if value is not None and low <= value <= high + 1:
        detail = f"Boilerhouse assigns {low} to {high + 1}, each to one container. Leave the uid out, or use another."
        raise ValidationError(detail, code="not_allowed")


def user_name(value: str) -> None:
    if not re.fullmatch(NAME, value):
        raise ValidationError("Use 1 to 32 of a-z, 0-9, _ and -, not starting with a digit or -.", code="invalid")
    if value == "root":
        raise ValidationError("root is the name of uid 0. Use another name.", code="not_allowed")


def home_directory(value: str) -> None:
    if not mounts.is_normal(value) or ":" in value:
        raise ValidationError(
            "Must be an absolute, normalized path such as /home/app, without a colon.", code="invalid"
        )


class IdNumberField(serializers.IntegerField):
    """A uid or gid."""

    def __init__(self, **options: Any) -> None:
        super().__init__(min_value=0, max_value=MAX_ID, **options)


@extend_schema_field({"type": "string", "pattern": f"^{NAME}$"})
class UserNameField(LineField):
    """A name in /etc/passwd."""

    default_validators = [user_name]

    def __init__(self, **options: Any) -> None:
        super().__init__(trim_whitespace=False, **options)


@extend_schema_field({"type": "string", "pattern": r"^(/[^/:\x00-\x1f\x7f-\x9f]+)+$", "maxLength": mounts.MAX_PATH})
class HomeField(LineField):
    """A home directory in a container."""

    default_validators = [home_directory]

    def __init__(self, **options: Any) -> None:
        super().__init__(max_length=mounts.MAX_PATH, trim_whitespace=False, **options)


class UserField(ApiSerializer):
    """The user of a container's processes."""

    uid = IdNumberField(
        required=False, allow_null=True, default=None, validators=[a_uid],
        help_text="The uid of all containers of the workload; default: a separate uid per container",
    )  # fmt: skip
    gid = IdNumberField(
        required=False, allow_null=True, default=None, validators=[a_gid], help_text="Default: the uid's number"
    )
    groups = serializers.ListField(
        child=IdNumberField(validators=[a_gid]), required=False, default=list, max_length=MAX_GROUPS,
        help_text="Supplementary groups, by number",
    )  # fmt: skip
    name = UserNameField(
        required=False, allow_null=True, default=None, help_text="A name in the container's /etc/passwd; requires home"
    )
    home = HomeField(required=False, allow_null=True, default=None, help_text="HOME, unless environment sets it")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs["name"] is not None and attrs["home"] is None:
            detail = "A named user needs a home directory, such as the path of the state volume."
            raise ValidationError({"home": ErrorDetail(detail, "required")})
        if len(set(attrs["groups"])) != len(attrs["groups"]):
            raise ValidationError({"groups": ErrorDetail("Groups must be unique.", "duplicate")})
        return attrs
