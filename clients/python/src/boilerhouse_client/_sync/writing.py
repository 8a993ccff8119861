# Made of _async/writing.py by scripts/python-client.sh: change that one.
"""How objects are replaced and changed, unless somebody else changes them first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from boilerhouse_client._sync.transport import Transport
from boilerhouse_client.answers import Json


def replace_object(
    client: Transport, path: str, body: Json, etag: str | None, params: Mapping[str, Any] | None = None
) -> Json:
    """Write the whole object. With ``etag``, raises PreconditionFailed if another has changed it."""
    headers = {"If-Match": etag} if etag else {}
    changed: Json = client.call("PUT", path, body, headers=headers, params=params)
    return changed


def update_object(client: Transport, path: str, changes: Json) -> Json:
    """Change some fields, unless somebody else changes the object first. Raises PreconditionFailed."""
    answer = client.raw("GET", path)
    return replace_object(client, path, {**answer.json(), **changes}, answer.headers.get("ETag"))
