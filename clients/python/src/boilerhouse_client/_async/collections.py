"""The collections of the API: objects of one kind, by id, with the actions of each kind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import quote

from boilerhouse_client._async.transport import AsyncTransport
from boilerhouse_client._async.writing import replace_object, update_object
from boilerhouse_client.answers import Direction, Json
from boilerhouse_client.wire import milliseconds, parameters

Filter = str | bool | Sequence[str]


class AsyncResource:
    """A path of the API, and the paths below it."""

    def __init__(self, client: AsyncTransport, path: str) -> None:
        self._client, self._path = client, path

    def _at(self, id: str, *more: str) -> str:
        return "/".join([self._path, *(quote(part, safe="") for part in (id, *more))])


class AsyncListing(AsyncResource):
    """Objects of one kind that can be listed."""

    async def list(self, **filters: Filter) -> AsyncIterator[Json]:
        """All of them, newest first, page by page."""
        cursor: str | None = None
        while True:
            page = await self._client.call("GET", self._path, params={**filters, "limit": 200, "cursor": cursor})
            for item in page["items"]:
                yield item
            cursor = page["nextCursor"]
            if cursor is None:
                return

    def _below(self, id: str, name: str, filters: dict[str, Filter]) -> AsyncIterator[Json]:
        return AsyncListing(self._client, self._at(id, name)).list(**filters)

    async def act(self, id: str, verb: str, body: Json | None = None) -> Any:
        """Any action by its name in the path, such as ``drain``; those of the API have a method each."""
        return await self._client.call("POST", self._at(id, verb), body)


class AsyncObjects(AsyncListing):
    """Objects that can be read by their id."""

    async def get(self, id: str) -> Json:
        """The object. Raises NotFound."""
        found: Json = await self._client.call("GET", self._at(id))
        return found


class AsyncReplaceable(AsyncObjects):
    """Objects that can be changed."""

    async def replace(self, id: str, body: Json, etag: str | None = None, **parameters: Any) -> Json:
        """Write the whole object. With ``etag``, raises PreconditionFailed if another has changed it."""
        return await replace_object(self._client, self._at(id), body, etag, parameters)

    async def update(self, id: str, **changes: Any) -> Json:
        """Change some fields, unless somebody else changes the object first. Raises PreconditionFailed."""
        return await update_object(self._client, self._at(id), changes)


class AsyncCollection(AsyncReplaceable):
    """Objects that can be made, changed and deleted."""

    async def create(self, body: Json) -> Json:
        made: Json = await self._client.call("POST", self._path, body)
        return made

    async def delete(self, id: str, **parameters: Any) -> None:
        """Delete the object. ``force=True``, where the API has it, deletes what is still in use."""
        await self._client.call("DELETE", self._at(id), params=parameters)


class AsyncWorkloads(AsyncCollection):
    async def refresh(self, id: str) -> Json:
        """Look in the registry for a newer image of the workload's tag. Returns the workload."""
        found: Json = await self.act(id, "refresh")
        return found

    def versions(self, id: str) -> AsyncIterator[Json]:
        return self._below(id, "versions", {})


class AsyncPools(AsyncCollection):
    """Its verbs return the pool."""

    async def scale(self, id: str, target_size: int) -> Json:
        """Set how many containers the pool has, within its bounds."""
        found: Json = await self.act(id, "scale", {"targetSize": target_size})
        return found

    async def pause(self, id: str) -> Json:
        """Start no more containers; claims take those that exist."""
        found: Json = await self.act(id, "pause")
        return found

    async def resume(self, id: str) -> Json:
        """End a pause or a drain."""
        found: Json = await self.act(id, "resume")
        return found

    async def drain(self, id: str) -> Json:
        """Release all tenants, with saves, and start no more containers."""
        found: Json = await self.act(id, "drain")
        return found

    def containers(self, id: str, **filters: Filter) -> AsyncIterator[Json]:
        """The pool's containers. ``filters``: ``state``, ``tenantId``."""
        return self._below(id, "containers", filters)

    def usage(self, id: str) -> AsyncIterator[Json]:
        return self._below(id, "usage", {})


class AsyncSyncSpecs(AsyncCollection):
    async def trigger(
        self, id: str, direction: Direction = "outward", *, tenant_id: str | None = None
    ) -> Sequence[Json]:
        """Queue a run for the tenant, or for each tenant of the pool. Returns the runs."""
        answer = await self.act(id, "trigger", {"direction": direction, "tenantId": tenant_id})
        runs: Sequence[Json] = answer["runs"]
        return runs

    async def probe(self, id: str) -> Json:
        """Save and restore a small test object now. Returns the sink's health."""
        found: Json = await self.act(id, "probe")
        return found

    def probes(self, id: str) -> AsyncIterator[Json]:
        """Earlier probes of the sink."""
        return self._below(id, "probes", {})

    async def status(self, id: str) -> Json:
        found: Json = await self._client.call("GET", self._at(id, "status"))
        return found


class AsyncSyncRuns(AsyncObjects):
    async def cancel(self, id: str) -> Json:
        """Ask a run to end. Returns the run."""
        found: Json = await self.act(id, "cancel")
        return found


class AsyncContainers(AsyncObjects):
    async def remove(self, id: str, *, discard: bool = False, timeout_s: float = 60) -> bool:
        """Remove a container; one that is held is released first, with a save unless ``discard``.

        True when it is gone, False when not yet in time. Raises Failed (``save_failed``), Conflict (``starting``).
        """
        query = {"discard": discard or None, "timeoutMs": milliseconds(timeout_s)}
        answer = await self._client.raw("DELETE", self._at(id), params=query, wait_s=timeout_s)
        return answer.status_code == 204

    async def delete(self, id: str) -> None:
        """``remove``, without waiting for what takes longer than the server's own time limit."""
        await self._client.call("DELETE", self._at(id))


class AsyncNodes(AsyncReplaceable):
    async def cordon(self, id: str, reason: str = "") -> Json:
        """Start no more containers on the node; its containers stay. Returns the node."""
        found: Json = await self.act(id, "cordon", {"reason": reason})
        return found

    async def uncordon(self, id: str) -> Json:
        """Let the node get containers again. Returns the node."""
        found: Json = await self.act(id, "uncordon")
        return found

    async def drain(self, id: str, *, after_s: float = 0, reason: str = "") -> Json:
        """Empty the node: its tenants are released, with a save, after ``after_s``. Returns the node."""
        body = {"afterMs": milliseconds(after_s) if after_s else None, "reason": reason or None}
        found: Json = await self.act(id, "drain", parameters(body))
        return found

    async def declare_lost(self, id: str, *, is_off: bool, reason: str = "") -> Json:
        """Let the tenants of a machine that does not come back claim elsewhere. Returns the node.

        ``is_off`` confirms that nothing runs there any more; otherwise a tenant could have two containers. Raises
        Invalid if it is False.
        """
        found: Json = await self.act(id, "lost", parameters({"isOff": is_off, "reason": reason or None}))
        return found

    async def join(self, body: Json) -> Json:
        """Make a machine a node, as ``manage.py join`` does. The body's token permits this once.

        The answer holds all keys of the deployment.
        """
        found: Json = await self._client.call("POST", f"{self._path}/join", body)
        return found


class AsyncNodeTokens(AsyncListing):
    """Tokens with which machines join."""

    async def create(self, *, ttl_s: float | None = None) -> Json:
        """Make a token that one machine can join with, within ``ttl_s``; the answer's ``token`` is shown once.

        Raises Conflict (``one_machine_only``) where the database is SQLite.
        """
        made: Json = await self._client.call("POST", self._path, parameters({"ttlMs": ttl_s and milliseconds(ttl_s)}))
        return made

    async def revoke(self, id: str) -> None:
        """End a token at once. Raises Conflict if a machine has joined with it."""
        await self._client.call("DELETE", self._at(id))


class AsyncNotifications(AsyncCollection):
    async def test(self, id: str) -> Json:
        """Send a test message. Returns its delivery."""
        found: Json = await self.act(id, "test")
        return found

    def deliveries(self, id: str, **filters: Filter) -> AsyncIterator[Json]:
        """Its messages. ``filters``: ``state``."""
        return self._below(id, "deliveries", filters)

    async def resend(self, id: str, delivery_id: str) -> Json:
        """Send a message once more. Returns its delivery."""
        found: Json = await self._client.call("POST", self._at(id, "deliveries", delivery_id, "resend"))
        return found


class AsyncCauses(AsyncResource):
    """What needs attention."""

    async def list(self) -> AsyncIterator[Json]:
        """All causes, muted ones too, the most serious first."""
        for item in (await self._client.call("GET", self._path))["items"]:
            yield item

    async def mute(self, id: str, *, for_s: float) -> Json:
        """Send no messages about this cause for ``for_s``. Returns its mute. Raises NotFound."""
        body = {"forMs": milliseconds(for_s)}
        muted: Json = await self._client.call("PUT", self._at(id, "mute"), body)
        return muted

    async def unmute(self, id: str) -> None:
        """Send messages about the cause again."""
        await self._client.call("DELETE", self._at(id, "mute"))


class AsyncApiKeys(AsyncListing):
    async def create(self, body: Json) -> Json:
        """Make a key. The answer's ``key`` is shown this once."""
        made: Json = await self._client.call("POST", self._path, body)
        return made

    async def rotate(self, id: str, *, overlap_s: float = 86400, expires_at: str | None = None) -> Json:
        """Make a key that replaces this one, which works for ``overlap_s`` more; the answer's ``key`` is shown once.

        ``expires_at``: RFC 3339; None for as long a life as the old key's.
        """
        body = {"overlapMs": round(overlap_s * 1000), "expiresAt": expires_at}
        made: Json = await self.act(id, "rotate", parameters(body))
        return made

    async def revoke(self, id: str) -> None:
        """End a key at once."""
        await self._client.call("DELETE", self._at(id))

    async def delete(self, id: str) -> None:
        """``revoke``."""
        await self.revoke(id)
