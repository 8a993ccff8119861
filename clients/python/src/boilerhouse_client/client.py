"""The client: one session, a handle per tenant and per claim, collections of everything else."""

from __future__ import annotations

import base64
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal
from urllib.parse import quote

import requests

from boilerhouse_client.errors import (
    BY_STATUS,
    ApiError,
    Failed,
    NotFound,
    Throttled,
    TimedOut,
    Unavailable,
    Unreachable,
)

Json = dict[str, Any]
Direction = Literal["outward", "inward", "both"]
GENERATION_HEADER = "X-Boilerhouse-Generation"


@dataclass(frozen=True)
class Executed:
    """What a command did. ``stdout_bytes`` and ``stderr_bytes`` are exact."""

    exit_code: int
    stdout_bytes: bytes
    stderr_bytes: bytes
    truncated: bool
    duration_ms: int
    stdout_truncated: bool = False
    stderr_truncated: bool = False

    @property
    def stdout(self) -> str:
        return self.stdout_bytes.decode(errors="replace")

    @property
    def stderr(self) -> str:
        return self.stderr_bytes.decode(errors="replace")


@dataclass(frozen=True)
class Event:
    """Something that happened; of type ``reset`` when events were missed and everything must be read anew."""

    id: int
    type: str
    payload: Json
    timestamp: str


class Client:
    """Talks to one Boilerhouse with one key; not for use by several threads at once."""

    def __init__(
        self, url: str | None = None, key: str | None = None, *, timeout_s: float = 60, retries: int = 3
    ) -> None:
        """``url`` and ``key`` default to BOILERHOUSE_URL and BOILERHOUSE_API_KEY.

        ``timeout_s`` is how long an answer may take beyond what the request itself asks to wait.
        """
        self.url = (url or os.environ["BOILERHOUSE_URL"]).rstrip("/")
        self.timeout_s, self.retries = timeout_s, retries
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {key or os.environ['BOILERHOUSE_API_KEY']}"
        self.workloads = Collection(self, "workloads")
        self.pools = Collection(self, "pools")
        self.sync_specs = Collection(self, "sync-specs")
        self.sync_runs = Collection(self, "sync-runs")
        self.containers = Collection(self, "containers")
        self.credentials = Collection(self, "credentials")
        self.registry_credentials = Collection(self, "registry-credentials")
        self.api_keys = Collection(self, "api-keys")
        self.audit = Collection(self, "audit")

    # Claims -----------------------------------------------------------------------------------------

    def claim(
        self,
        tenant_id: str,
        pool_id: str,
        *,
        config: Json | None = None,
        secrets: dict[str, str] | None = None,
        metadata: Json | None = None,
        timeout_s: float = 30,
    ) -> Claim:
        """Claim a container for the tenant, or find the one that it holds.

        Use it in a ``with`` block, which releases at its end. Raises ApiError.
        """
        body = _claim_body(pool_id, config, secrets, metadata)
        return Claim(self, self.tenant(tenant_id)._wait("POST", "claim", body, timeout_s))

    def begin_claim(
        self,
        tenant_id: str,
        pool_id: str,
        *,
        config: Json | None = None,
        secrets: dict[str, str] | None = None,
        metadata: Json | None = None,
        timeout_s: float = 30,
    ) -> PendingClaim:
        """Claim without waiting (``wait: false``), for a state whose restore takes longer than a request may.

        ``timeout_s`` bounds only the wait for a container. Raises ApiError when the claim is refused.
        """
        body = {**_claim_body(pool_id, config, secrets, metadata), "wait": False}
        return PendingClaim(self, self.tenant(tenant_id)._wait("POST", "claim", body, timeout_s))

    def tenant(self, tenant_id: str) -> Tenant:
        return Tenant(self, tenant_id)

    def tenants(self, **filters: str) -> Iterator[Json]:
        """Tenants that hold something."""
        return Collection(self, "tenants").list(**filters)

    # Events -----------------------------------------------------------------------------------------

    def events(self, after: int | None = None, **filters: str | Sequence[str]) -> Iterator[Event]:
        """Events from now on, or after an id, for ever: a broken connection is made again where it broke.

        ``filters``: ``type``, ``poolId``, ``tenantId``, ``containerId``. Raises Unauthorized when the key is revoked.
        """
        last = after
        while True:
            headers = {"Last-Event-ID": str(last)} if last is not None else {}
            try:
                answer = self.raw("GET", "events/stream", params=filters, headers=headers, stream=True)
                with answer:
                    for event in _frames(answer):
                        last = event.id
                        yield event
            except (requests.RequestException, Unreachable):
                pass
            time.sleep(0.5)

    # Requests ---------------------------------------------------------------------------------------

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """Ask the API below ``/api/v1/`` and return what it answers, None for an empty answer. Raises ApiError."""
        answer = self.raw(method, path, json=body, **options)
        return answer.json() if answer.content else None

    def raw(self, method: str, path: str, *, wait_s: float = 0, **options: Any) -> requests.Response:
        """The same, as a response. Tried again where that is safe: a POST carries an ``Idempotency-Key``.

        Raises Unreachable also for a redirect: what goes along is for this address alone.
        """
        headers = {**options.pop("headers", {})}
        if method == "POST":
            headers.setdefault("Idempotency-Key", uuid.uuid4().hex)
        timeout = (10, None if options.get("stream") else self.timeout_s + wait_s)
        for attempt in range(self.retries + 1):
            is_last = attempt == self.retries
            try:
                answer = self._session.request(
                    method,
                    f"{self.url}/api/v1/{path}",
                    headers=headers,
                    timeout=timeout,
                    allow_redirects=False,
                    **options,
                )
                if answer.is_redirect:
                    where = answer.headers["Location"]
                    raise Unreachable(
                        f"{self.url} redirects to {where}. If that is Boilerhouse, make it the client's url."
                    )
                if answer.ok:
                    return answer
                error = _error(answer)
                if is_last or not isinstance(error, Throttled | Unavailable) or error.retry_after is None:
                    raise error
                pause = error.retry_after
            except requests.RequestException as broken:
                if is_last:
                    raise Unreachable(f"{self.url} does not answer: {broken}") from broken
                pause = 0.2 * 2**attempt
            time.sleep(min(pause, 30))
        raise AssertionError("unreachable")


class Collection:
    """Things of one kind, by id."""

    def __init__(self, client: Client, path: str) -> None:
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
        """Change some fields and nothing that another changes meanwhile. Raises PreconditionFailed."""
        answer = self._client.raw("GET", self._at(id))
        return self.replace(id, {**answer.json(), **changes}, answer.headers.get("ETag"))

    def delete(self, id: str, **parameters: Any) -> None:
        self._client.call("DELETE", self._at(id), params=_query(parameters))

    def act(self, id: str, verb: str, body: Json | None = None) -> Any:
        """``scale``, ``pause``, ``trigger``, ``probe``, ``cancel`` …"""
        return self._client.call("POST", self._at(id, verb), body)


class Tenant:
    """One tenant, whether it holds something or not."""

    def __init__(self, client: Client, id: str) -> None:
        self.client, self.id = client, id
        self._path = f"tenants/{quote(id, safe='')}"

    def _wait(self, method: str, verb: str, body: Json | None, timeout_s: float) -> Any:
        milliseconds = {"timeoutMs": max(1, round(timeout_s * 1000))}
        return self.client.call(method, f"{self._path}/{verb}", body, params=milliseconds, wait_s=timeout_s)

    def status(self) -> Json:
        found: Json = self.client.call("GET", f"{self._path}/status")
        return found

    def release(self, *, sync: bool | None = None, discard: bool = False, timeout_s: float = 60) -> bool:
        """Give the container back; True when the state is safe and it is gone, False when not yet in time.

        Raises NotFound when the tenant holds nothing, Failed (``save_failed``) when the state stays on the node.
        """
        answer = self._wait("POST", "release", {"sync": sync, "discard": discard}, timeout_s)
        return answer["state"] is None

    def exec(self, command: Sequence[str], *, stdin: bytes | str | None = None, timeout_s: float = 30) -> Executed:
        """Run a command in the tenant's container and wait for its end.

        Its ``exit_code`` is 127 where there is no such command, 126 where it cannot be executed. Raises TimedOut when
        it was killed; the error's ``stdout_bytes`` and ``stderr_bytes`` are what it had printed.
        """
        body: Json = {"command": list(command), "encoding": "base64", "timeoutMs": round(timeout_s * 1000)}
        if stdin is not None:
            given = stdin.encode() if isinstance(stdin, str) else stdin
            body["stdin"] = base64.b64encode(given).decode()
        done = self.client.call("POST", f"{self._path}/exec", body, wait_s=timeout_s)
        out, err = base64.b64decode(done["stdout"]), base64.b64decode(done["stderr"])
        cut = done["stdoutTruncated"], done["stderrTruncated"]
        return Executed(done["exitCode"], out, err, done["truncated"], done["durationMs"], *cut)

    def logs(self, tail: int = 100) -> str:
        return self.client.raw("GET", f"{self._path}/logs", params={"tail": tail}).text

    def follow_logs(self, tail: int = 0) -> Iterator[str]:
        """Each line that the container writes from now on, until it ends."""
        query = {"tail": tail, "follow": "true"}
        with self.client.raw("GET", f"{self._path}/logs", params=query, stream=True) as answer:
            for line in answer.iter_lines(chunk_size=1):
                yield line.decode(errors="replace")

    def sync(self, direction: Direction = "outward") -> list[Json]:
        """Queue runs; look at them with ``client.sync_runs.get``."""
        runs: list[Json] = self.client.call("POST", f"{self._path}/sync", {"direction": direction})["runs"]
        return runs

    def heartbeat(self) -> None:
        self.client.call("POST", f"{self._path}/heartbeat")

    def runs(self, **filters: str) -> Iterator[Json]:
        return Collection(self.client, f"{self._path}/runs").list(**filters)

    def backups(self) -> Iterator[Json]:
        return Collection(self.client, f"{self._path}/backups").list()

    def restore_backup(self, backup_id: str) -> Json:
        run: Json = self.client.call("POST", f"{self._path}/backups/{backup_id}/restore")
        return run

    def erase_state(self, timeout_s: float = 60) -> bool:
        """Erase what the sinks hold of the tenant; True when nothing is left, False when not yet in time."""
        query = {"timeoutMs": round(timeout_s * 1000)}
        return self.client.raw("DELETE", f"{self._path}/state", params=query, wait_s=timeout_s).status_code == 204


class PendingClaim(Tenant):
    """A claim that was begun; its state may still be on the way."""

    def __init__(self, client: Client, answer: Json) -> None:
        super().__init__(client, answer["tenantId"])
        self.answer = answer
        self.pool_id: str = answer["poolId"]

    def wait(
        self, timeout_s: float | None = None, *, every_s: float = 1.0, on_progress: Callable[[Json], None] | None = None
    ) -> Claim:
        """Wait until the container is ready, as long as something of the restore moves, or ``timeout_s`` at most.

        ``on_progress`` gets the status's ``restore`` while there is one. Raises ApiError with the claim's code when it
        failed, and TimedOut, which leaves the claim as it is.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            status = self.status()
            if status["state"] == "assigned":
                return Claim(self.client, self._wait("POST", "claim", {"poolId": self.pool_id}, 30))
            if status["claimError"] or status["state"] != "pending":
                gone = {"code": "claim_aborted", "detail": "The tenant's claim is no longer there."}
                raise Failed(502, status["claimError"] or gone)
            if on_progress and status["restore"]:
                on_progress(status["restore"])
            if until is not None and time.monotonic() > until:
                raise TimedOut(504, {"code": "claim_pending", "detail": "The claim is still under way."})
            time.sleep(every_s)


class Claim(Tenant):
    """A container that the tenant holds. As a context manager it is released, with save, at the end of the block."""

    def __init__(self, client: Client, answer: Json) -> None:
        """``answer`` is all that the API said of the claim."""
        super().__init__(client, answer["tenantId"])
        self.answer, self.released = answer, False
        self.container_id: str = answer["containerId"]
        self.pool_id: str = answer["poolId"]
        self.generation: int = answer["generation"]
        self.source: str = answer["source"]

    def url(self, port: str = "http") -> str:
        """Where the container's port of this name answers, from the node it runs on."""
        return next(str(end["url"]) for end in self.answer["endpoints"] if end["name"] == port)

    def request(self, method: str, path: str, *, port: str = "http", **options: Any) -> requests.Response:
        """Ask the container itself. The claim's generation is sent along: the app may refuse what is another's.

        A redirect is returned as it is, not followed: a container must not say where this machine asks next.
        ``allow_redirects=True`` follows it.
        """
        headers = {GENERATION_HEADER: str(self.generation), **options.pop("headers", {})}
        timeout = options.pop("timeout", self.client.timeout_s)
        options.setdefault("allow_redirects", False)
        return requests.request(method, self.url(port) + path, headers=headers, timeout=timeout, **options)

    def release(self, *, sync: bool | None = None, discard: bool = False, timeout_s: float = 60) -> bool:
        done = super().release(sync=sync, discard=discard, timeout_s=timeout_s)
        self.released = True
        return done

    def __enter__(self) -> Claim:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.released:
            return
        try:
            self.release()
        except NotFound:
            pass  # somebody has released it meanwhile
        except (ApiError, Unreachable) as failed:
            if error is None:
                raise
            if hasattr(error, "add_note"):  # the block's own error matters more
                error.add_note(f"The release failed too: {failed}")


def _claim_body(pool_id: str, config: Json | None, secrets: dict[str, str] | None, metadata: Json | None) -> Json:
    given = {"config": config, "secrets": secrets, "metadata": metadata}
    return {"poolId": pool_id, **{name: value for name, value in given.items() if value is not None}}


def _error(answer: requests.Response) -> ApiError:
    try:
        problem = answer.json()
    except ValueError:
        problem = {"detail": answer.text[:200]}
    after = answer.headers.get("Retry-After", "")
    kind = BY_STATUS.get(answer.status_code, ApiError)
    return kind(answer.status_code, problem, float(after) if after.isdigit() else None)


def _query(parameters: Json) -> Json:
    return {name: str(value).lower() if isinstance(value, bool) else value for name, value in parameters.items()}


def _frames(answer: requests.Response) -> Iterator[Event]:
    """The events of a stream of server-sent events."""
    for line in answer.iter_lines(chunk_size=1):
        if line.startswith(b"data: "):
            told = json.loads(line[6:])
            if "type" in told:
                yield Event(told["id"], told["type"], told["payload"], told["timestamp"])
