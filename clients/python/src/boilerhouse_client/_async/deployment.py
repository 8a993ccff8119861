"""Settings, statistics, health and stored events of the deployment, and files by signed links."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from boilerhouse_client._async import platform
from boilerhouse_client._async.collections import AsyncListing, Filter
from boilerhouse_client._async.transport import AsyncTransport
from boilerhouse_client._async.writing import replace_object, update_object
from boilerhouse_client.answers import Event, FileInfo, Json, Link
from boilerhouse_client.errors import Unavailable
from boilerhouse_client.payloads import payload_of
from boilerhouse_client.wire import error_of


class AsyncDeployment(AsyncTransport):
    """The deployment as a whole."""

    async def settings(self) -> Json:
        found: Json = await self.call("GET", "settings")
        return found

    async def replace_settings(self, body: Json, etag: str | None = None) -> Json:
        """Write all settings. With ``etag``, raises PreconditionFailed if another has changed them."""
        return await replace_object(self, "settings", body, etag)

    async def update_settings(self, **changes: Any) -> Json:
        """Change some settings, unless somebody else changes any setting first. Raises PreconditionFailed."""
        return await update_object(self, "settings", changes)

    async def stats(self) -> Json:
        found: Json = await self.call("GET", "stats")
        return found

    def usage(self, **filters: Filter) -> AsyncIterator[Json]:
        """What tenants have used. ``filters``: ``month`` (``2026-11``), ``tenantId``, ``by`` (``tenant``, ``day``)."""
        return AsyncListing(self, "usage").list(**filters)

    async def health(self) -> Json:
        """Whether the web process answers, and its version."""
        found: Json = await self.call("GET", "health")
        return found

    async def ready(self) -> Json:
        """The results of the readiness checks, also if one fails."""
        try:
            found: Json = await self.call("GET", "health/ready", retries=0)
        except Unavailable as error:
            if "checks" not in error.document:
                raise
            return error.document
        return found

    async def metrics(self) -> str:
        """The metrics in the text format of Prometheus."""
        return (await self.raw("GET", "metrics")).text

    async def past_events(self, after: int | None = None, **filters: Filter) -> AsyncIterator[Event]:
        """Stored events, newest first; or those after an id, oldest first.

        ``filters``: ``type``, ``poolId``, ``tenantId``, ``containerId``. An event of type ``reset`` comes first if
        events after the id have been deleted.
        """
        cursor: str | None = None
        position = after
        while True:
            query = {**filters, "after": position, "cursor": cursor, "limit": 200}
            page = await self.call("GET", "events", params=query)
            if page["reset"] and position is not None:
                yield Event(position, "reset", {}, "")
            for item in page["items"]:
                yield Event(item["id"], item["type"], item["payload"], item["timestamp"])
            cursor = page["nextCursor"]
            if after is not None and page["items"]:
                position = page["items"][-1]["id"]
            elif cursor is None:
                return

    # Files by a signed link, without the key ----------------------------------------------------------

    async def read_link(self, link: Link | str) -> bytes:
        """The file that a link leads to, in memory. The key is not sent. Raises ApiError and Unreachable."""
        answer = await self.ask_elsewhere("GET", _url_of(link))
        if not answer.is_success:
            raise error_of(answer)
        return answer.content

    async def write_link(self, link: Link | str, data: platform.Source) -> FileInfo:
        """Write the file that a link leads to, as ``files.write``. The key is not sent, and nothing is sent again."""
        payload = payload_of(data)
        headers = {"Content-Type": "application/octet-stream"}
        if payload.length is not None:
            headers["Content-Length"] = str(payload.length)
        answer = await self.ask_elsewhere("PUT", _url_of(link), headers=headers, content=platform.content(payload))
        if not answer.is_success:
            raise error_of(answer)
        return FileInfo.of(answer.json())


def _url_of(link: Link | str) -> str:
    return link if isinstance(link, str) else link.url
