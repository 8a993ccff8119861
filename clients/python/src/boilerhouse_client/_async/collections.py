"""Things of one kind, by id."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import quote

from boilerhouse_client._async.transport import AsyncTransport
from boilerhouse_client.answers import Json


class AsyncCollection:
    """Things of one kind, by id."""

    def __init__(self, client: AsyncTransport, path: str) -> None:
        self._client, self._path = client, path

    def _at(self, id: str, *more: str) -> str:
        return "/".join([self._path, quote(id, safe=""), *more])

    async def list(self, **filters: str | Sequence[str]) -> AsyncIterator[Json]:
        """All of them, newest first, page by page."""
        cursor: str | None = None
        while True:
            page = await self._client.call("GET", self._path, params={**filters, "limit": 200, "cursor": cursor})
            for item in page["items"]:
                yield item
            cursor = page["nextCursor"]
            if cursor is None:
                return

    async def create(self, body: Json) -> Json:
        made: Json = await self._client.call("POST", self._path, body)
        return made

    async def get(self, id: str) -> Json:
        found: Json = await self._client.call("GET", self._at(id))
        return found

    async def replace(self, id: str, body: Json, etag: str | None = None) -> Json:
        headers = {"If-Match": etag} if etag else {}
        changed: Json = await self._client.call("PUT", self._at(id), body, headers=headers)
        return changed

    async def update(self, id: str, **changes: Any) -> Json:
        """Change some fields, unless somebody else changes the object first. Raises PreconditionFailed."""
        answer = await self._client.raw("GET", self._at(id))
        return await self.replace(id, {**answer.json(), **changes}, answer.headers.get("ETag"))

    async def delete(self, id: str, **parameters: Any) -> None:
        await self._client.call("DELETE", self._at(id), params=parameters)

    async def act(self, id: str, verb: str, body: Json | None = None) -> Any:
        """``scale``, ``pause``, ``trigger``, ``probe``, ``cancel`` …"""
        return await self._client.call("POST", self._at(id, verb), body)
