"""A registry login in the engine's format."""

from __future__ import annotations

from typing import Any

import docker.auth

from pools import references
from pools.runtime.base import RegistryLogin


def header_of(reference: references.Reference, login: RegistryLogin | None, api: Any) -> dict[str, str | bytes]:
    """The header with the login that the engine passes to the image's registry."""
    if login is None:
        header = docker.auth.get_config_header(api, reference.registry)
        return {"X-Registry-Auth": header} if header else {}
    return {"X-Registry-Auth": docker.auth.encode_header(body_of(reference.registry, login))}


def body_of(registry: str, login: RegistryLogin) -> dict[str, str]:
    """The login as the engine takes it."""
    if login.identity_token:
        return {"identitytoken": login.identity_token, "serveraddress": registry}
    return {"username": login.username, "password": login.password, "serveraddress": registry}
