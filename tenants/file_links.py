"""Signed links to one file of a tenant's container: whoever has the link may do what it says, until it expires.

A link names its method and path and is signed with the deployment's key. It ends with the claim that it was made in
(it carries the generation), and with the key that made it.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import time
from dataclasses import dataclass
from typing import Any

from django.utils.crypto import salted_hmac

from boilerhouse.core import api_keys
from boilerhouse.core.errors import Forbidden
from tenants import files
from tenants.errors import NotAssigned, Releasing
from tenants.files import HeldFiles

MAX_S = 7 * 24 * 3600
_MAX_TOKEN = 8000
_SALT = "boilerhouse.file_links"


class LinkInvalid(Forbidden):
    """The link is not valid: it has expired, its key was revoked, or the tenant no longer holds that container."""

    code = "link_invalid"


@dataclass(frozen=True, slots=True)
class FileLink:
    tenant_id: str
    generation: int
    method: str
    """GET or PUT"""
    path: bytes
    expires_at: int
    """Unix time in seconds."""
    key_id: str


def sign(link: FileLink) -> str:
    path = base64.b64encode(link.path).decode()
    fields = [link.tenant_id, link.generation, link.method, path, link.expires_at, link.key_id]
    content = _encode(json.dumps(fields, separators=(",", ":")).encode())
    return f"{content}.{_signature(content)}"


def read(token: str) -> FileLink:
    """What a link that we signed says, if it has not expired and its key lives. Raises LinkInvalid."""
    content, _, signature = token.partition(".")
    if len(token) > _MAX_TOKEN or not token.isascii() or not hmac.compare_digest(_signature(content), signature):
        raise LinkInvalid
    link = _parse(content)
    if link.expires_at <= time.time() or link.key_id not in api_keys.living_keys([link.key_id]):
        raise LinkInvalid
    return link


def _parse(content: str) -> FileLink:
    try:
        fields: list[Any] = json.loads(base64.urlsafe_b64decode(content + "=" * (-len(content) % 4)))
        tenant_id, generation, method, path, expires_at, key_id = fields
        return FileLink(tenant_id, generation, method, base64.b64decode(path), expires_at, key_id)
    except (ValueError, TypeError, binascii.Error) as error:  # signed by another version
        raise LinkInvalid from error


def held_by(link: FileLink, method: str) -> HeldFiles:
    """The files that the link leads to, if the claim still lives. Raises LinkInvalid, OtherNode."""
    if method != link.method:
        raise LinkInvalid("The link is for another method.")
    try:
        held = files.of_tenant(link.tenant_id)
    except (NotAssigned, Releasing) as error:
        raise LinkInvalid from error
    if held.generation != link.generation:
        raise LinkInvalid
    return held


def _signature(content: str) -> str:
    return _encode(salted_hmac(_SALT, content, algorithm="sha256").digest())


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
