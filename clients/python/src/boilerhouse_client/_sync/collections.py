# Made of _async/collections.py by scripts/python-client.sh: change that one.
"""Things of one kind, by id."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

from boilerhouse_client._sync.transport import Transport
from boilerhouse_client.answers import Json


class Collection:
    """Things of one kind, by id."""

    def __init__(self, client: Transport, path: str) -> None:
        self._client, self._path = client, path

    def _at(self, id: str, *more: str) -> str:
        return "/".join([self._path, quote(id, safe=""), *more])

    def list(self, **filters: str | Sequence[str]) -> Iterator[Json]:
        """All of them, newest first, page by page."""
        cursor: str | None = None
        while True:
            page = self._client.call("GET", self._path, params={**filters, "limit": 200, "cursor": cursor})
            yield from page["items"]
            cursor = page["nextCursor"]
            if cursor is None:
                return

    def create(self, body: Json) -> Json:
        made: Json = self._client.call("POST", self._path, body)
        return made

    def get(self, id: str) -> Json:
        found: Json = self._client.call("GET", self._at(id))
        return found

    def replace(self, id: str, body: Json, etag: str | None = None) -> Json:
        headers = {"If-Match": etag} if etag else {}
        changed: Json = self._client.call("PUT", self._at(id), body, headers=headers)
        return changed

    def update(self, id: str, **changes: Any) -> Json:
        """Change some fields, unless somebody else changes the object first. Raises PreconditionFailed."""
        answer = self._client.raw("GET", self._at(id))
        return self.replace(id, {**answer.json(), **changes}, answer.headers.get("ETag"))

    def delete(self, id: str, **parameters: Any) -> None:
        self._client.call("DELETE", self._at(id), params=parameters)

    def act(self, id: str, verb: str, body: Json | None = None) -> Any:
        """``scale``, ``pause``, ``trigger``, ``probe``, ``cancel`` …"""
        return self._client.call("POST", self._at(id, verb), body)
