# Made of _async/collections.py by scripts/python-client.sh: change that one.
"""The collections of the API: objects of one kind, by id, with the actions of each kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

from boilerhouse_client._sync.transport import Transport
from boilerhouse_client._sync.writing import replace_object, update_object
from boilerhouse_client.answers import Direction, Json
from boilerhouse_client.wire import milliseconds, parameters

Filter = str | bool | Sequence[str]


class Resource:
    """A path of the API, and the paths below it."""

    def __init__(self, client: Transport, path: str) -> None:
        self._client, self._path = client, path

    def _at(self, id: str, *more: str) -> str:
        return "/".join([self._path, *(quote(part, safe="") for part in (id, *more))])


class Listing(Resource):
    """Objects of one kind that can be listed."""

    def list(self, **filters: Filter) -> Iterator[Json]:
        """All of them, newest first, page by page."""
        cursor: str | None = None
        while True:
            page = self._client.call("GET", self._path, params={**filters, "limit": 200, "cursor": cursor})
            yield from page["items"]
            cursor = page["nextCursor"]
            if cursor is None:
                return

    def _below(self, id: str, name: str, filters: dict[str, Filter]) -> Iterator[Json]:
        return Listing(self._client, self._at(id, name)).list(**filters)

    def act(self, id: str, verb: str, body: Json | None = None) -> Any:
        """Any action by its name in the path, such as ``drain``; those of the API have a method each."""
        return self._client.call("POST", self._at(id, verb), body)


class Objects(Listing):
    """Objects that can be read by their id."""

    def get(self, id: str) -> Json:
        """The object. Raises NotFound."""
        found: Json = self._client.call("GET", self._at(id))
        return found


class Replaceable(Objects):
    """Objects that can be changed."""

    def replace(self, id: str, body: Json, etag: str | None = None, **parameters: Any) -> Json:
        """Write the whole object. With ``etag``, raises PreconditionFailed if another has changed it."""
        return replace_object(self._client, self._at(id), body, etag, parameters)

    def update(self, id: str, **changes: Any) -> Json:
        """Change some fields, unless somebody else changes the object first. Raises PreconditionFailed."""
        return update_object(self._client, self._at(id), changes)


class Collection(Replaceable):
    """Objects that can be made, changed and deleted."""

    def create(self, body: Json) -> Json:
        made: Json = self._client.call("POST", self._path, body)
        return made

    def delete(self, id: str, **parameters: Any) -> None:
        """Delete the object. ``force=True``, where the API has it, deletes what is still in use."""
        self._client.call("DELETE", self._at(id), params=parameters)


class Workloads(Collection):
    def refresh(self, id: str) -> Json:
        """Look in the registry for a newer image of the workload's tag. Returns the workload."""
        found: Json = self.act(id, "refresh")
        return found

    def versions(self, id: str) -> Iterator[Json]:
        return self._below(id, "versions", {})


class Pools(Collection):
    """Its verbs return the pool."""

    def scale(self, id: str, target_size: int) -> Json:
        """Set how many containers the pool has, within its bounds."""
        found: Json = self.act(id, "scale", {"targetSize": target_size})
        return found

    def pause(self, id: str) -> Json:
        """Start no more containers; claims take those that exist."""
        found: Json = self.act(id, "pause")
        return found

    def resume(self, id: str) -> Json:
        """End a pause or a drain."""
        found: Json = self.act(id, "resume")
        return found

    def drain(self, id: str) -> Json:
        """Release all tenants, with saves, and start no more containers."""
        found: Json = self.act(id, "drain")
        return found

    def containers(self, id: str, **filters: Filter) -> Iterator[Json]:
        """The pool's containers. ``filters``: ``state``, ``tenantId``."""
        return self._below(id, "containers", filters)

    def usage(self, id: str) -> Iterator[Json]:
        return self._below(id, "usage", {})


class SyncSpecs(Collection):
    def trigger(self, id: str, direction: Direction = "outward", *, tenant_id: str | None = None) -> Sequence[Json]:
        """Queue a run for the tenant, or for each tenant of the pool. Returns the runs."""
        answer = self.act(id, "trigger", {"direction": direction, "tenantId": tenant_id})
        runs: Sequence[Json] = answer["runs"]
        return runs

    def probe(self, id: str) -> Json:
        """Save and restore a small test object now. Returns the sink's health."""
        found: Json = self.act(id, "probe")
        return found

    def probes(self, id: str) -> Iterator[Json]:
        """Earlier probes of the sink."""
        return self._below(id, "probes", {})

    def status(self, id: str) -> Json:
        found: Json = self._client.call("GET", self._at(id, "status"))
        return found


class SyncRuns(Objects):
    def cancel(self, id: str) -> Json:
        """Ask a run to end. Returns the run."""
        found: Json = self.act(id, "cancel")
        return found


class Containers(Objects):
    def remove(self, id: str, *, discard: bool = False, timeout_s: float = 60) -> bool:
        """Remove a container; one that is held is released first, with a save unless ``discard``.

        True when it is gone, False when not yet in time. Raises Failed (``save_failed``), Conflict (``starting``).
        """
        query = {"discard": discard or None, "timeoutMs": milliseconds(timeout_s)}
        answer = self._client.raw("DELETE", self._at(id), params=query, wait_s=timeout_s)
        return answer.status_code == 204

    def delete(self, id: str) -> None:
        """``remove``, without waiting for what takes longer than the server's own time limit."""
        self._client.call("DELETE", self._at(id))


class Nodes(Replaceable):
    def cordon(self, id: str, reason: str = "") -> Json:
        """Start no more containers on the node; its containers stay. Returns the node."""
        found: Json = self.act(id, "cordon", {"reason": reason})
        return found

    def uncordon(self, id: str) -> Json:
        """Let the node get containers again. Returns the node."""
        found: Json = self.act(id, "uncordon")
        return found

    def drain(self, id: str, *, after_s: float = 0, reason: str = "") -> Json:
        """Empty the node: its tenants are released, with a save, after ``after_s``. Returns the node."""
        body = {"afterMs": milliseconds(after_s) if after_s else None, "reason": reason or None}
        found: Json = self.act(id, "drain", parameters(body))
        return found

    def declare_lost(self, id: str, *, is_off: bool, reason: str = "") -> Json:
        """Let the tenants of a machine that does not come back claim elsewhere. Returns the node.

        ``is_off`` confirms that nothing runs there any more; otherwise a tenant could have two containers. Raises
        Invalid if it is False.
        """
        found: Json = self.act(id, "lost", parameters({"isOff": is_off, "reason": reason or None}))
        return found

    def join(self, body: Json) -> Json:
        """Make a machine a node, as ``manage.py join`` does. The body's token permits this once.

        The answer holds all keys of the deployment.
        """
        found: Json = self._client.call("POST", f"{self._path}/join", body)
        return found


class NodeTokens(Listing):
    """Tokens with which machines join."""

    def create(self, *, ttl_s: float | None = None) -> Json:
        """Make a token that one machine can join with, within ``ttl_s``; the answer's ``token`` is shown once.

        Raises Conflict (``one_machine_only``) where the database is SQLite.
        """
        made: Json = self._client.call("POST", self._path, parameters({"ttlMs": ttl_s and milliseconds(ttl_s)}))
        return made

    def revoke(self, id: str) -> None:
        """End a token at once. Raises Conflict if a machine has joined with it."""
        self._client.call("DELETE", self._at(id))


class Notifications(Collection):
    def test(self, id: str) -> Json:
        """Send a test message. Returns its delivery."""
        found: Json = self.act(id, "test")
        return found

    def deliveries(self, id: str, **filters: Filter) -> Iterator[Json]:
        """Its messages. ``filters``: ``state``."""
        return self._below(id, "deliveries", filters)

    def resend(self, id: str, delivery_id: str) -> Json:
        """Send a message once more. Returns its delivery."""
        found: Json = self._client.call("POST", self._at(id, "deliveries", delivery_id, "resend"))
        return found


class Causes(Resource):
    """What needs attention."""

    def list(self) -> Iterator[Json]:
        """All causes, muted ones too, the most serious first."""
        yield from (self._client.call("GET", self._path))["items"]

    def mute(self, id: str, *, for_s: float) -> Json:
        """Send no messages about this cause for ``for_s``. Returns its mute. Raises NotFound."""
        body = {"forMs": milliseconds(for_s)}
        muted: Json = self._client.call("PUT", self._at(id, "mute"), body)
        return muted

    def unmute(self, id: str) -> None:
        """Send messages about the cause again."""
        self._client.call("DELETE", self._at(id, "mute"))


class ApiKeys(Listing):
    def create(self, body: Json) -> Json:
        """Make a key. The answer's ``key`` is shown this once."""
        made: Json = self._client.call("POST", self._path, body)
        return made

    def rotate(self, id: str, *, overlap_s: float = 86400, expires_at: str | None = None) -> Json:
        """Make a key that replaces this one, which works for ``overlap_s`` more; the answer's ``key`` is shown once.

        ``expires_at``: RFC 3339; None for as long a life as the old key's.
        """
        body = {"overlapMs": round(overlap_s * 1000), "expiresAt": expires_at}
        made: Json = self.act(id, "rotate", parameters(body))
        return made

    def revoke(self, id: str) -> None:
        """End a key at once."""
        self._client.call("DELETE", self._at(id))

    def delete(self, id: str) -> None:
        """``revoke``."""
        self.revoke(id)
