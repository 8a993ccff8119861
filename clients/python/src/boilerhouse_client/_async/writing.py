"""How objects are replaced and changed, unless somebody else changes them first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from boilerhouse_client._async.transport import AsyncTransport
from boilerhouse_client.answers import Json


async def replace_object(
    client: AsyncTransport, path: str, body: Json, etag: str | None, params: Mapping[str, Any] | None = None
) -> Json:
    """Write the whole object. With ``etag``, raises PreconditionFailed if another has changed it."""
    headers = {"If-Match": etag} if etag else {}
    changed: Json = await client.call("PUT", path, body, headers=headers, params=params)
    return changed


async def update_object(client: AsyncTransport, path: str, changes: Json) -> Json:
    """Change some fields, unless somebody else changes the object first. Raises PreconditionFailed."""
    answer = await client.raw("GET", path)
    return await replace_object(client, path, {**answer.json(), **changes}, answer.headers.get("ETag"))
