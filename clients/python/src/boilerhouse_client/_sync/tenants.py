# Made of _async/tenants.py by scripts/python-client.sh: change that one.
"""A tenant, its claim, and a container, with what can be done in it."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx

from boilerhouse_client._sync import platform
from boilerhouse_client._sync.collections import Filter, Listing
from boilerhouse_client._sync.commands import Commands
from boilerhouse_client._sync.files import Files
from boilerhouse_client._sync.saved_files import SavedFiles
from boilerhouse_client._sync.terminals import Terminal
from boilerhouse_client._sync.transport import Transport
from boilerhouse_client._sync.writing import replace_object
from boilerhouse_client.answers import CommandResult, Direction, Executed, Json, PortLink, time_of
from boilerhouse_client.errors import ApiError, Failed, NotFound, TimedOut, Unreachable
from boilerhouse_client.wire import SHELL, Words, first_result, milliseconds, octets, text

GENERATION_HEADER = "X-Boilerhouse-Generation"


class Held:
    """What can be done in a container, whether it is named by its tenant or by its id."""

    def __init__(self, client: Transport, path: str) -> None:
        self.client, self._path = client, path
        self.commands = Commands(client, path)
        self.files = Files(client, path)

    def terminal(
        self,
        command: Words = SHELL,
        *,
        cols: int = 80,
        rows: int = 24,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> AbstractContextManager[Terminal]:
        """A shell, or another command, on a terminal. At the end of the block it is killed."""
        return self.commands.terminal(command, cols=cols, rows=rows, cwd=cwd, env=env)

    def exec(self, command: Sequence[str], *, stdin: bytes | str | None = None, timeout_s: float = 30) -> Executed:
        """Run a command and wait for its end; ``commands.run`` can do more.

        Its ``exit_code`` is 127 where there is no such command, 126 where it cannot be executed. Raises TimedOut when
        it was killed; the error's ``stdout_bytes`` and ``stderr_bytes`` are what it had printed.
        """
        body: Json = {"command": list(command), "encoding": "base64", "timeoutMs": milliseconds(timeout_s)}
        if stdin is not None:
            body["stdin"] = text(octets(stdin))
        done = self.client.call("POST", f"{self._path}/exec", body, wait_s=timeout_s)
        out, err = base64.b64decode(done["stdout"]), base64.b64decode(done["stderr"])
        cut = done["stdoutTruncated"], done["stderrTruncated"]
        return Executed(done["exitCode"], out, err, done["truncated"], done["durationMs"], *cut)

    def logs(self, tail: int = 100, *, since: datetime | None = None) -> str:
        """The last lines that the container wrote, of those after ``since``, which needs a time zone."""
        query = {"tail": tail, "since": since and since.isoformat()}
        return (self.client.raw("GET", f"{self._path}/logs", params=query)).text

    def follow_logs(self, tail: int = 0, *, since: datetime | None = None) -> Iterator[str]:
        """The last lines, and each line that the container writes from now on, until it ends."""
        query = {"tail": tail, "since": since and since.isoformat(), "follow": "true"}
        with self.client.stream("GET", f"{self._path}/logs", params=query) as answer:
            rest = b""
            with platform.closing(answer.iter_raw()) as pieces:
                for piece in pieces:
                    *lines, rest = (rest + piece).split(b"\n")
                    for line in lines:
                        yield line.decode(errors="replace")
            if rest:
                yield rest.decode(errors="replace")


class Container(Held):
    """A container by its id, for staff."""

    def __init__(self, client: Transport, id: str) -> None:
        super().__init__(client, f"containers/{quote(id, safe='')}")
        self.id = id


class Tenant(Held):
    """One tenant, whether it holds something or not."""

    def __init__(self, client: Transport, id: str) -> None:
        super().__init__(client, f"tenants/{quote(id, safe='')}")
        self.id = id
        self.saved_files = SavedFiles(client, self._path)

    def _wait(self, method: str, verb: str, body: Json | None, timeout_s: float) -> Any:
        limit = {"timeoutMs": milliseconds(timeout_s)}
        return self.client.call(method, f"{self._path}/{verb}", body, params=limit, wait_s=timeout_s)

    def status(self) -> Json:
        found: Json = self.client.call("GET", f"{self._path}/status")
        return found

    def release(self, *, sync: bool | None = None, discard: bool = False, timeout_s: float = 60) -> bool:
        """Give the container back; True when the state is safe and it is gone, False when not yet in time.

        Raises NotFound when the tenant holds nothing, Failed (``save_failed``) when the state stays on the node.
        """
        answer = self._wait("POST", "release", {"sync": sync, "discard": discard}, timeout_s)
        return answer["state"] is None

    def sync(self, direction: Direction = "outward") -> list[Json]:
        """Queue runs; look at them with ``client.sync_runs.get``."""
        answer = self.client.call("POST", f"{self._path}/sync", {"direction": direction})
        runs: list[Json] = answer["runs"]
        return runs

    def port_link(self, port: int, *, expires_in_s: int = 3600) -> PortLink:
        """A URL with which any browser reaches this port through the gateway, until it expires or your key ends.

        Raises NotFound (``port_not_found``), Conflict (``not_assigned``, ``gateway_off``).
        """
        answer = self.client.call("POST", f"{self._path}/ports/{port}/links", {"expiresInS": expires_in_s})
        return PortLink(answer["url"], time_of(answer["expiresAt"]))

    def heartbeat(self) -> None:
        self.client.call("POST", f"{self._path}/heartbeat")

    def set_ttl(self, ttl_s: float | None) -> datetime | None:
        """Release the tenant, with a save, ``ttl_s`` from now; None: never. Returns the time of the release.

        Raises Conflict (``not_assigned``) unless the tenant holds a container.
        """
        body = {"ttlMs": None if ttl_s is None else milliseconds(ttl_s)}
        ends: str | None = (self.client.call("PUT", f"{self._path}/ttl", body))["endsAt"]
        return None if ends is None else time_of(ends)

    def runs(self, **filters: Filter) -> Iterator[Json]:
        """Its saves and restores. ``filters``: ``specId``, ``state``, ``direction``, ``trigger``."""
        return Listing(self.client, f"{self._path}/runs").list(**filters)

    def backups(self, **filters: Filter) -> Iterator[Json]:
        """Its older states. ``filters``: ``specId``."""
        return Listing(self.client, f"{self._path}/backups").list(**filters)

    def restore_backup(self, backup_id: str) -> Json:
        run: Json = self.client.call("POST", f"{self._path}/backups/{backup_id}/restore")
        return run

    def erase_state(self, timeout_s: float = 60) -> bool:
        """Erase what the sinks hold of the tenant; True when nothing is left, False when not yet in time."""
        query = {"timeoutMs": milliseconds(timeout_s)}
        answer = self.client.raw("DELETE", f"{self._path}/state", params=query, wait_s=timeout_s)
        return answer.status_code == 204

    def forget_state(self) -> int:
        """After a claim failed with ``state_missing`` or ``state_moved``: let the next one begin with an empty state.

        Returns how many saved locations are now expected to be empty. Raises Conflict (``not_missing``).
        """
        return int((self.client.call("POST", f"{self._path}/forget-state"))["forgotten"])

    def network(self) -> Json:
        """Where its container may send packets."""
        found: Json = self.client.call("GET", f"{self._path}/network")
        return found

    def set_network(self, policy: Json, etag: str | None = None) -> Json:
        """Narrow the pool's policy for it: ``{"mode": "list", "allow": ["192.0.2.1:443"]}``; ``{}`` narrows nothing.

        With ``etag``, raises PreconditionFailed if another has changed it.
        """
        return replace_object(self.client, f"{self._path}/network", policy, etag)


class PendingClaim(Tenant):
    """A claim that was begun; its state may still be on the way."""

    def __init__(self, client: Transport, answer: Json) -> None:
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
            platform.sleep(every_s)


class Claim(Tenant):
    """A container that the tenant holds. As a context manager it is released, with save, at the end of the block."""

    def __init__(self, client: Transport, answer: Json) -> None:
        """``answer`` is all that the API said of the claim."""
        super().__init__(client, answer["tenantId"])
        self.answer, self.released = answer, False
        self.container_id: str = answer["containerId"]
        self.pool_id: str = answer["poolId"]
        self.generation: int = answer["generation"]
        self.source: str = answer["source"]

    @property
    def first_result(self) -> CommandResult | None:
        """What the claim's own command did; None if it had none, or found the container that the tenant held.

        Raises Failed, TimedOut: the claim holds all the same.
        """
        answer = self.answer.get("command")
        return None if answer is None else first_result(answer)

    def url(self, port: str = "http") -> str:
        """Where the container's port of this name answers, from the node it runs on."""
        return next(str(end["url"]) for end in self.answer["endpoints"] if end["name"] == port)

    def public_url(self, port: str = "http") -> str | None:
        """Where the gateway leads to the container's port of this name; None if the gateway does not lead there."""
        url: str | None = next(end.get("publicUrl") for end in self.answer["endpoints"] if end["name"] == port)
        return url

    def request(self, method: str, path: str, *, port: str = "http", **options: Any) -> httpx.Response:
        """Ask the container itself. The claim's generation is sent along: the app may refuse what is another's.

        ``options`` are those of ``httpx.request``. A redirect is returned as it is, not followed: a container must not
        say where this machine asks next. ``follow_redirects=True`` follows it. Raises Unreachable.
        """
        headers = {GENERATION_HEADER: str(self.generation), **options.pop("headers", {})}
        return self.client.ask_elsewhere(method, self.url(port) + path, headers=headers, **options)

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
            pass  # somebody else has released it
        except (ApiError, Unreachable) as failed:
            if error is None:
                raise
            if hasattr(error, "add_note"):  # the block's own error matters more
                error.add_note(f"The release failed too: {failed}")
