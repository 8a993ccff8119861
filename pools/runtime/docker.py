"""The Docker Engine as runtime; besides ``asked`` the only module that imports docker.

Only the low-level client: the models ask twice. ``pools.runtime.dialect`` says which API version is spoken.
"""

from __future__ import annotations

import contextlib
import io
import re
import secrets
import select
import socket
import tarfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from itertools import chain
from typing import Any

import docker.auth
import docker.errors
import docker.utils
import requests
import structlog
import urllib3
from docker.types import IPAMConfig, IPAMPool
from docker.types import Mount as DockerMount

import docker
from boilerhouse.core import tracing
from boilerhouse.core.deployment import node_id
from boilerhouse.core.errors import BoilerhouseError
from pools import errors, host_processes, pull_errors, references
from pools.instruments import DOCKER_ERRORS, DOCKER_SECONDS
from pools.pull_errors import PullFault
from pools.runtime import asked, confined, dialect, refusals
from pools.runtime.attached import Attached, early_bytes
from pools.runtime.base import (
    Capabilities,
    ContainerPlan,
    ContainerRuntime,
    EngineEvent,
    Executed,
    File,
    Handle,
    Image,
    LogStream,
    Network,
    Observed,
    Pending,
    Probe,
    Probed,
    Pull,
    PullProgress,
    RegistryLogin,
    Terminal,
)
from pools.runtime.pull_stream import Layers, error_of

log = structlog.get_logger(__name__)

FAST_S, SLOW_S, BUILD_S = 10, 60, 600
TAG_S = 15
"""A registry that is asked what a tag names holds a worker for no longer."""
LIST_S = 5
"""The list is what tells that the engine hangs."""
HOT_S = (0.5, 1.0, 2.0)
"""Deadlines on hot paths; a few, for each has a client of its own."""
SUSPECT_S = 5.0
STANDS_STILL_S = 5.0
"""How long a command waits for a container that is held still for a save."""
_LIMITS = {"MemoryLimit": "memory", "CpuCfsQuota": "CPU time", "PidsLimit": "processes"}
"""What the engine says of itself, and of what it speaks."""
LOG_BYTES = 64 * 1024
NEVER = None
"""A deadline: a log may be silent for days."""

_NO_GPUS = (
    "This node's engine has no GPUs to give. Install the vendor's container toolkit (NVIDIA Container Toolkit) on the"
    " node, or remove resources.gpus from the workload."
)
CANNOT_GIVE = {
    "could not select device driver": _NO_GPUS,
    "failed to discover GPU vendor": _NO_GPUS,
    "unresolvable CDI devices": _NO_GPUS,
    "error gathering device information": "The node has not every device that the workload names. Load the driver that"
    " makes it, or remove it from devices.",
    "setting rlimit": "The node's kernel refuses a limit of the workload's ulimits. Lower it.",
}
"""What the engine says of a start → what an operator can do."""


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn what docker and requests raise into our errors; most specific first."""
    try:
        yield
    except docker.errors.ImageNotFound as error:
        raise errors.ImageMissing(_words(error)) from error
    except docker.errors.NotFound as error:
        raise errors.ContainerMissing(_words(error)) from error
    except docker.errors.APIError as error:
        words = _words(error)
        if error.status_code == 409 and "is already in use" in words:
            raise errors.NameTaken(words) from error
        if error.status_code == 409 and "not running" in words:
            raise errors.NotRunning(words) from error
        for sign, told in CANNOT_GIVE.items():
            if sign in words:
                raise errors.CannotGive(f"{told} The engine says: {words}") from error
        if "exec:" in words or "executable file not found" in words or "OCI runtime create failed" in words:
            raise errors.BadCommand(words) from error
        if error.status_code == 403 and "active endpoints" not in words:
            raise errors.EngineFailure("The socket of this process does not let this call through.") from error
        raise errors.EngineFailure(words) from error
    except (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError) as error:
        raise errors.EngineTimeout("The container engine does not answer in time.") from error
    except (docker.errors.DockerException, requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise errors.EngineUnavailable(f"The container engine does not answer ({type(error).__name__}).") from error


def _words(error: docker.errors.APIError) -> str:
    return _all_words(error)[:500]


def _all_words(error: docker.errors.APIError) -> str:
    return str(error.explanation or error)


class Speech:
    """The API version that a process speaks with its engine: one for all its clients."""

    def __init__(self) -> None:
        self._agreed: dialect.Dialect | None = None

    def agreed(self, client: MeteredClient) -> dialect.Dialect:
        """What was agreed; asks the engine by ``client``, within its deadline, where nothing is."""
        if (known := self._agreed) is None:  # two threads may both ask: they hear the same
            known = self._agreed = dialect.agree(client.said_version())
        return known

    def heard(self, newest: str | None) -> None:
        """An answer named the engine's newest version: if it is another one than before, the engine is, too."""
        known = self._agreed
        if known is not None and newest is not None and newest != known.newest:
            log.info("the engine behind the socket has changed", was=known.newest, now=newest)
            self._agreed = None

    def forget(self) -> None:
        """Ask again before the next call."""
        self._agreed = None


class MeteredClient(docker.APIClient):
    """Counts each call by its path without names: how long until it is answered, and whether the engine failed it.

    Speaks the version that ``speech`` has agreed with the engine.
    """

    def __init__(self, base_url: str, timeout_s: float | None, speech: Speech) -> None:
        deadline: Any = timeout_s  # requests takes fractions and None, the stubs do not
        super().__init__(base_url=base_url, version=dialect.OLDEST, timeout=deadline, max_pool_size=32)
        self.trust_env = not self.is_socket  # that has neither a proxy nor an entry in .netrc
        self._speech = speech

    def agree(self) -> None:
        """Speak what the engine understands. Raises EngineUnsupported."""
        self._version = self._speech.agreed(self).version

    def said_version(self) -> dict[str, Any]:
        """What the engine says of itself; the one call that needs no version."""
        said: dict[str, Any] = self.version(api_version=False)
        return said

    def request(self, method: Any, url: Any, *args: Any, **options: Any) -> requests.Response:
        answer = self._asked(str(method), str(url), *args, **options)
        if answer.status_code == 400 and dialect.is_refusal(400, answer.content):
            # The engine was exchanged since we agreed. It has done nothing yet, so the call may be made once more.
            self._speech.forget()
            self.agree()
            if hasattr(options.get("data"), "seek"):
                options["data"].seek(0)
            spoken = _VERSION.sub(f"/v{self._version}", str(url), count=1)
            answer = self._asked(str(method), spoken, *args, **options)
        return answer

    def _asked(self, method: str, url: str, *args: Any, **options: Any) -> requests.Response:
        with _metered(_call_of(method, url)) as told:
            answer = super().request(method, url, *args, **options)
            told(answer.status_code)
        self._speech.heard(answer.headers.get("Api-Version"))
        return answer

    def state_of(self, name: str) -> dict[str, Any]:
        """``inspect_container``, at about half of its price where the engine is a socket: every claim asks it.

        Whatever is no plain answer is asked again in the ordinary way, which has the words for it.
        """
        if self.is_socket and _PLAIN_NAME.match(name):
            pool = self.get_adapter(self.base_url).get_connection(self.base_url)  # type: ignore[attr-defined]
            with _metered("GET /containers/{id}/json") as told:
                path = f"/v{self._version}/containers/{name}/json"
                answer = pool.urlopen("GET", path, retries=False, timeout=self.timeout)
                told(answer.status)
            self._speech.heard(answer.headers.get("Api-Version"))
            if answer.status == 200:
                found: dict[str, Any] = answer.json()
                return found
        return dict(self.inspect_container(name))

    @property
    def is_socket(self) -> bool:
        return str(self.base_url).startswith("http+docker:")


_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.-]+\Z")


@contextlib.contextmanager
def _metered(call: str) -> Iterator[Callable[[int], None]]:
    """Count a call and how long it takes; what is yielded is told the answer's status."""
    began = time.monotonic()

    def told(status: int) -> None:
        if status >= 500:
            DOCKER_ERRORS.labels(call, str(status)).inc()

    try:
        with tracing.span(f"docker {call}"):
            yield told
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        is_late = isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError)
        DOCKER_ERRORS.labels(call, "timeout" if is_late else "unreachable").inc()
        raise
    finally:
        DOCKER_SECONDS.labels(call).observe(time.monotonic() - began)


_VERSION = re.compile(r"(?<=[^/])/v\d+\.\d+(?=/)")
_BEFORE_PATH = re.compile(r"^[a-z+]+://[^/]*(/v\d+\.\d+(?=/))?")
_NAMED = re.compile(
    r"/(containers|images|networks|exec|distribution)/(?!create$|json$|search$|load$|prune$).+?(/\w+)?$"
)


def _call_of(method: str, url: str) -> str:
    """``POST /containers/{id}/start``"""
    path = _BEFORE_PATH.sub("", url).partition("?")[0]
    return f"{method.upper()} {_NAMED.sub(lambda found: f'/{found[1]}/{{id}}{found[2] or str()}', path)}"


class DockerRuntime(ContainerRuntime):
    def __init__(self, base_url: str) -> None:
        self.node = node_id()
        self._base_url = base_url
        self._clients: dict[float, MeteredClient] = {}
        self._speech = Speech()
        self._lock = threading.Lock()
        self._timed_out_at = -SUSPECT_S

    def _api(self, timeout_s: float = FAST_S) -> MeteredClient:
        self._speech.agreed(self._client(min(timeout_s, FAST_S)))
        client = self._client(timeout_s)
        client.agree()
        return client

    def _client(self, timeout_s: float) -> MeteredClient:
        with self._lock:
            client = self._clients.get(timeout_s)
            if client is None:
                client = self._clients[timeout_s] = MeteredClient(self._base_url, timeout_s, self._speech)
            return client

    def _own_api(self, timeout_s: float | None) -> MeteredClient:
        """A client for one streaming call. The caller closes it."""
        self._speech.agreed(self._client(FAST_S))
        client = MeteredClient(self._base_url, timeout_s, self._speech)
        client.agree()
        return client

    def ping(self, timeout_s: float = FAST_S) -> str:
        with translated():
            return str(self._api(timeout_s).said_version()["Version"])

    def capabilities(self) -> Capabilities:
        with translated():
            api = self._api()
            info, spoken = api.info(), self._speech.agreed(api)
        security = {part for option in info.get("SecurityOptions") or () for part in option.split(",")}
        store = dict(info.get("DriverStatus") or ()).get("driver-type", "")
        return Capabilities(
            version=spoken.engine,
            api_version=spoken.version,
            newest_api_version=spoken.newest,
            cgroup_version=str(info.get("CgroupVersion", "")),
            image_store="containerd" if store.startswith("io.containerd.snapshotter") else str(info.get("Driver", "")),
            is_rootless="name=rootless" in security,
            remaps_users="name=userns" in security,
            cannot_limit=tuple(words for name, words in _LIMITS.items() if info.get(name) is False),
            firewall=str((info.get("FirewallBackend") or {}).get("Driver", "")),
            live_restore=bool(info.get("LiveRestoreEnabled")),
            runtimes=frozenset(info.get("Runtimes", {})),
            cpus=int(info.get("NCPU", 0)),
            memory_mb=int(info.get("MemTotal", 0)) // (1 << 20),
        )

    def sees(self, path: str, labels: dict[str, str]) -> bool | None:
        with translated():
            api = self._api(SLOW_S)
            host_config = api.create_host_config(
                mounts=[DockerMount("/probe", path, type="bind", read_only=True)], network_mode="none"
            )
            name = f"bh-probe-{secrets.token_hex(8)}"
            failed: docker.errors.APIError | None = None
            for image in api.images(quiet=True):
                try:
                    api.create_container(image, ["probe"], name=name, labels=labels, host_config=host_config)
                except docker.errors.APIError as error:
                    if "bind source path does not exist" in _words(error):
                        return False
                    failed = error  # such as of an image with an impossible VOLUME; another image may do
                    continue
                api.remove_container(name, force=True, v=True)  # of whichever image it is
                return True
            if failed is not None:
                raise failed
        return None

    # Images ----------------------------------------------------------------------------------------

    def find_image(self, image: str) -> Image:
        with translated():
            return _image(_inspect_image(self._api(), references.at_engine(image)))

    def pull(
        self, reference: references.Reference, login: RegistryLogin | None = None, patience_s: float = SLOW_S
    ) -> Pull:
        with translated():  # a client of its own: it reads root's ~/.docker/config.json as it is now, and is long
            api = self._own_api(NEVER)
        return DockerPull(api, reference, login, patience_s)

    def named_digest(self, reference: references.Reference, login: RegistryLogin | None = None) -> str:
        with translated(), contextlib.closing(self._own_api(TAG_S)) as own:
            api: Any = own
            url = api._url(f"/distribution/{reference.name}:{reference.version}/json")
            try:
                answer = api._get(url, headers=_shown_to(reference, login, api))
                api._raise_for_status(answer)
            except requests.ReadTimeout as error:
                words = f"nothing came from {reference.registry} for {TAG_S} s"
                raise pull_errors.pull_failed(reference, words, PullFault.TIMEOUT) from error
            except docker.errors.APIError as error:
                raise pull_errors.pull_failed(reference, _all_words(error), login=login) from error
            return str(answer.json()["Descriptor"]["digest"])

    def log_in(self, registry: str, login: RegistryLogin) -> None:
        with translated(), contextlib.closing(self._own_api(TAG_S)) as own:
            api: Any = own
            try:
                answer = api._post_json(api._url("/auth"), data=_told(registry, login))
                api._raise_for_status(answer)
            except requests.ReadTimeout as error:
                words = f"nothing came from it for {TAG_S} s"
                raise pull_errors.login_failed(registry, words, login, PullFault.TIMEOUT) from error
            except docker.errors.APIError as error:
                if error.status_code == 403:  # by the proxy before the socket: a refusal by the registry is 401 here
                    raise
                raise pull_errors.login_failed(registry, _all_words(error), login) from error

    def build(self, context: bytes, tag: str) -> Iterator[str]:
        with translated():
            stream = self._api(BUILD_S).build(
                fileobj=io.BytesIO(context), custom_context=True, tag=tag, rm=True, forcerm=True, decode=True
            )
            for chunk in stream:
                if words := error_of(chunk):
                    raise errors.EngineFailure(f"Building {tag} failed: {words}")
                if line := str(chunk.get("stream", "")).strip():
                    yield line

    # Networks --------------------------------------------------------------------------------------

    def ensure_network(
        self, name: str, bridge: str, subnets: Iterator[str], labels: dict[str, str], subnet6: str = ""
    ) -> Network:
        with translated():
            if (found := self._known_network(name)) is not None:
                if found.subnet6 == subnet6 or self._api().inspect_network(name)["Containers"]:
                    return found
                self._api(SLOW_S).remove_network(name)
                subnets = chain([found.subnet], subnets)
            ipv6 = [IPAMPool(subnet=subnet6)] if subnet6 else []
            for subnet in subnets:
                try:
                    self._api(SLOW_S).create_network(
                        name,
                        driver="bridge",
                        check_duplicate=True,
                        labels=labels,
                        enable_ipv6=bool(subnet6),
                        ipam=IPAMConfig(pool_configs=[IPAMPool(subnet=subnet), *ipv6]),
                        options={
                            "com.docker.network.bridge.enable_icc": "false",
                            "com.docker.network.bridge.name": bridge,
                        },
                    )
                except docker.errors.APIError as error:
                    if "overlap" in _words(error):
                        continue
                    if "already exists" not in _words(error):
                        raise
                return self._network(self._api().inspect_network(name))
            raise errors.HostNotReady("No /16 network is free on this host; set BOILERHOUSE_SUBNET.")

    def _known_network(self, name: str) -> Network | None:
        known = self._api().networks(names=[name])
        return next((self._network(one) for one in known if one["Name"] == name), None)

    def _network(self, found: dict[str, Any]) -> Network:
        pools = {":" in one["Subnet"]: one for one in found["IPAM"]["Config"]}
        bridge = found["Options"].get("com.docker.network.bridge.name", f"br-{found['Id'][:12]}")
        subnet6 = pools[True]["Subnet"] if True in pools and found.get("EnableIPv6") else ""
        return Network(found["Name"], bridge, pools[False]["Subnet"], pools[False].get("Gateway", ""), subnet6)

    def remove_network(self, name: str) -> None:
        with translated(), contextlib.suppress(docker.errors.NotFound):
            self._api(SLOW_S).remove_network(name)

    # Containers ------------------------------------------------------------------------------------

    def create(self, plan: ContainerPlan) -> Handle:
        with translated():
            api = self._api(SLOW_S)
            made = api.create_container(name=plan.name, **asked.arguments(api, plan))
        return Handle(self.node, made["Id"], plan.name)

    def start(self, name: str) -> None:
        with translated():
            self._api(SLOW_S).start(name)

    def stop(self, name: str, timeout_ms: int) -> Pending | None:
        seconds = -(-timeout_ms // 1000)
        with translated():
            try:
                if seconds:
                    self._api(SLOW_S + seconds).stop(name, timeout=seconds)
                else:  # the engine's stop sends two signals even then, each by a process of its own
                    self._api(SLOW_S).kill(name)
            except docker.errors.NotFound:
                return None
            except docker.errors.APIError as error:
                if seconds or error.status_code != 409:
                    raise
        observed = self.inspect(name)
        return Pending("The engine still runs it.") if observed and observed.is_running else None

    def remove(self, name: str) -> Pending | None:
        with translated():
            try:
                self._api(SLOW_S).remove_container(name, force=True, v=True)
            except docker.errors.NotFound:
                return None
            except docker.errors.APIError as error:
                if error.status_code == 409 and "in progress" in _words(error):
                    return Pending("The engine is already removing it.")
                raise
        return None

    def pause(self, name: str) -> None:
        with translated():
            try:
                self._api().pause(name)
            except docker.errors.APIError as error:
                if "already paused" not in _words(error):
                    raise

    def unpause(self, name: str) -> None:
        with translated():
            try:
                self._api().unpause(name)
            except docker.errors.NotFound:
                return
            except docker.errors.APIError as error:
                if "not paused" not in _words(error) and "not running" not in _words(error):
                    raise

    def inspect(self, name: str, timeout_s: float | None = None) -> Observed | None:
        allowed = FAST_S if timeout_s is None else max((t for t in HOT_S if t <= timeout_s), default=HOT_S[0])
        found = self._found(name, allowed)
        return None if found is None else self._observed(found)

    def inspect_made(self, plan: ContainerPlan) -> Observed | None:
        found = self._found(plan.name, FAST_S)
        if found is None:
            return None
        if not found["State"]["Running"]:
            return self._observed(found)
        with translated():
            api = self._api()
        body = api.create_container_config(**asked.arguments(api, plan))
        wrong = asked.differences(body, found) or confined.differences(found)
        if wrong:
            raise errors.NotAsAsked(f"The engine made another container than it was asked for: {'; '.join(wrong)}.")
        return self._observed(found)

    def _found(self, name: str, timeout_s: float) -> dict[str, Any] | None:
        try:
            with translated():
                try:
                    return self._api(timeout_s).state_of(name)
                except docker.errors.NotFound:
                    return None
        except errors.EngineTimeout:
            self._timed_out_at = time.monotonic()
            raise

    def _observed(self, found: dict[str, Any]) -> Observed:
        state = found["State"]
        return Observed(
            Handle(self.node, found["Id"], found["Name"].lstrip("/")),
            found["Config"]["Labels"],
            bool(state["Running"]),
            state["Status"],
            state["ExitCode"],
            state["Pid"],
            (state.get("Health") or {}).get("Status", ""),
            bool(state["OOMKilled"]),
            next_probe_at=_next_probe(found),
            probed=_probed(found),
        )

    def file(self, name: str, path: str, limit_bytes: int) -> File | None:
        with translated():
            api: Any = self._api()
            url = api._url("/containers/{0}/archive", name)
            looked = api.head(url, params={"path": path}, timeout=FAST_S)
            try:
                api._raise_for_status(looked)
            except docker.errors.NotFound:
                api.inspect_container(name)  # which raises where it is the container that is not there
                return None
            found = _file(docker.utils.decode_json_header(looked.headers["X-Docker-Container-Path-Stat"]))
            if found.kind != "file" or found.size > limit_bytes:
                return found  # at a FIFO the engine would wait for a writer
            with contextlib.closing(api._get(url, params={"path": path}, stream=True)) as answer:
                api._raise_for_status(answer)
                return replace(found, content=_only_file(answer.iter_content(CHUNK_BYTES), limit_bytes))

    def is_suspect(self) -> bool:
        return time.monotonic() - self._timed_out_at < SUSPECT_S

    def list(self, labels: dict[str, str]) -> list[Observed]:
        wanted = [f"{name}={value}" for name, value in labels.items()]
        with translated():
            found = self._api(LIST_S).containers(all=True, filters={"label": wanted})
        return [
            Observed(
                Handle(self.node, item["Id"], item["Names"][0].lstrip("/") if item["Names"] else item["Id"]),
                item["Labels"],
                item["State"] in ("running", "paused"),
                item["State"],
                health=_health_of(item["Status"]),
                created_at=float(item["Created"]),
            )
            for item in found
        ]

    def events(self, labels: dict[str, str]) -> Iterator[EngineEvent]:
        wanted = [f"{name}={value}" for name, value in labels.items()]
        filters = {"type": "container", "label": wanted, "event": ["die", "oom", "destroy", "health_status"]}
        with translated():
            api = self._own_api(FAST_S)
            stream = api.events(decode=True, filters=filters)
        return _events(api, stream)

    def logs(
        self,
        name: str,
        tail: int,
        since: float | None = None,
        limit_bytes: int = LOG_BYTES,
        *,
        timestamps: bool = False,
        errors_only: bool = False,
    ) -> bytes:
        with translated():
            # As a stream: what has a limit must not be held whole in memory first.
            kept = deque[bytes]()
            size = 0
            asked: Any = {"tail": tail, "since": since, "timestamps": timestamps, "stdout": not errors_only}
            for chunk in self._api().logs(name, **asked, stream=True, follow=False):
                kept.append(chunk)
                size += len(chunk)
                while size - len(kept[0]) >= limit_bytes:
                    size -= len(kept.popleft())
            return b"".join(kept)[-limit_bytes:]

    def follow_logs(self, name: str, tail: int, since: float | None = None, *, timestamps: bool = False) -> LogStream:
        with translated():
            api = self._own_api(NEVER)
            asked: Any = {"tail": tail, "since": since, "timestamps": timestamps}
            return _Followed(api, api.logs(name, **asked, stream=True, follow=True))

    def terminal(self, name: str, command: tuple[str, ...], columns: int, rows: int) -> Terminal:
        with translated():
            api = self._api()
            environment = {"TERM": "xterm-256color"}
            made = api.exec_create(name, list(command), stdin=True, tty=True, environment=environment)
            stream: Any = api.exec_start(made["Id"], tty=True, socket=True)
            terminal = AttachedTerminal(api, made["Id"], stream)
            with contextlib.suppress(docker.errors.APIError):  # it has ended already
                api.exec_resize(made["Id"], height=rows, width=columns)
            return terminal

    def exec(
        self,
        name: str,
        command: tuple[str, ...],
        timeout_ms: int,
        stdin: bytes | None = None,
        limit_bytes: int = 1 << 20,
    ) -> Executed:
        until = time.monotonic() + STANDS_STILL_S
        while True:
            with translated():
                try:
                    done, has_begun = self._exec(name, command, timeout_ms, stdin, limit_bytes)
                except docker.errors.APIError as error:
                    if "is paused" not in _words(error) or time.monotonic() > until:
                        raise
                else:
                    if has_begun or time.monotonic() > until:
                        return done
            time.sleep(0.02)

    def _exec(
        self, name: str, command: tuple[str, ...], timeout_ms: int, stdin: bytes | None, limit_bytes: int
    ) -> tuple[Executed, bool]:
        """The result, and whether the command began: the engine begins none while the container stands still."""
        started = time.monotonic()
        api = self._api()
        exec_id = api.exec_create(name, list(command), stdin=stdin is not None)["Id"]
        try:
            stream: Any = api.exec_start(exec_id, socket=True)
        except docker.errors.APIError as error:
            if refused := refusals.executed(_words(error), command, _ms_since(started)):
                return refused, True
            raise

        def is_running() -> bool:
            return bool(api.exec_inspect(exec_id)["Running"])

        connection: socket.socket = getattr(stream, "_sock", stream)
        attached = Attached(stream._response.raw._fp.fp, connection, is_running)
        try:
            attached.run(stdin, started + timeout_ms / 1000, limit_bytes)
        except TimeoutError as error:
            raise errors.ExecTimedOut(
                self._kill(api, exec_id, timeout_ms),
                bytes(attached.stdout),
                bytes(attached.stderr),
                stdout_truncated=attached.stdout_truncated,
                stderr_truncated=attached.stderr_truncated,
            ) from error
        finally:
            stream.close()
        seen = api.exec_inspect(exec_id)
        out, err = bytes(attached.stdout), bytes(attached.stderr)
        exit_code = -1 if seen["ExitCode"] is None else seen["ExitCode"]
        if exit_code and not seen["Pid"]:
            if b"cannot exec in a paused container" in out:
                return Executed(exit_code, out, err, _ms_since(started)), False
            if refused := refusals.executed((out or err).decode(errors="replace"), command, _ms_since(started)):
                return refused, True
        cut = attached.stdout_truncated, attached.stderr_truncated
        done = Executed(exit_code, out, err, _ms_since(started), *cut)
        return refusals.at_execve(done, command) or done, True

    def _kill(self, api: docker.APIClient, exec_id: str, timeout_ms: int) -> str:
        """Kill what the command started and say so; the engine itself has no verb for that."""
        seen = api.exec_inspect(exec_id)
        late = f"The command did not end within {timeout_ms} ms"
        if not seen["Running"]:
            return f"{late}; it has ended since."
        if host_processes.kill_tree(seen["Pid"], seen["ContainerID"]):
            return f"{late} and was killed."
        return f"{late}; it could not be killed from here and goes on until the container is released."


def _ms_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)


def _inspect_image(api: Any, name: str) -> dict[str, Any]:
    """As ``inspect_image``, which would write @ as %40: the proxy before the socket lets no % through."""
    if _PLAIN_IMAGE.match(name):
        answer: dict[str, Any] = api._result(api._get(api._url(f"/images/{name}/json")), True)
        return answer
    return dict(api.inspect_image(name))


_PLAIN_IMAGE = re.compile(r"[\w./:@-]+\Z")


def _image(found: dict[str, Any]) -> Image:
    config = found.get("Config") or {}
    return Image(
        found["Id"],
        tuple(sorted(config.get("Volumes") or ())),
        config.get("WorkingDir") or "",
        _images_probe(config),
        tuple(found.get("RepoDigests") or ()),
    )


def _images_probe(config: dict[str, Any]) -> Probe | None:
    """The HEALTHCHECK of an image, with the engine's defaults where it leaves something out."""
    check = config.get("Healthcheck") or {}
    command = _probe_command(config)
    if not command:
        return None

    def ms(name: str, default: int) -> int:
        return (check.get(name) or 0) // 1_000_000 or default

    return Probe(
        command, ms("Interval", 30_000), ms("Timeout", 30_000), check.get("Retries") or 3, ms("StartPeriod", 0)
    )


def _probe_command(config: dict[str, Any]) -> tuple[str, ...]:
    """What the engine runs for the health check of an image or a container; empty for none."""
    kind, *words = (config.get("Healthcheck") or {}).get("Test") or ["NONE"]
    if kind == "CMD-SHELL":
        return (*(config.get("Shell") or ("/bin/sh", "-c")), *words)
    return tuple(words) if kind == "CMD" else ()


_KINDS = {0: "file", 1 << 31: "directory", 1 << 27: "symbolic link"}
"""By the bits of a mode that say what it is, as the engine writes them."""
_KIND_BITS = 1 << 31 | 1 << 27 | 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21 | 1 << 19
CHUNK_BYTES, TAR_BYTES = 1 << 16, 1 << 20
"""What the engine may write around a file's content."""


def _file(seen: dict[str, Any]) -> File:
    return File(_KINDS.get(seen["mode"] & _KIND_BITS, "special file"), seen["size"])


def _only_file(stream: Iterator[bytes], limit_bytes: int) -> bytes:
    """The content of the one file in a tar archive."""
    packed = bytearray()
    for chunk in stream:
        packed += chunk
        if len(packed) > limit_bytes + TAR_BYTES:
            raise errors.EngineFailure("The engine sends more than the file has.")
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:") as archive:
        member = archive.next()
        found = member and archive.extractfile(member)
        if not found:
            raise errors.EngineFailure("The engine sends another thing than the file.")
        return found.read()


def _events(api: docker.APIClient, stream: Any) -> Iterator[EngineEvent]:
    with translated():
        try:
            for event in stream:
                kind, _, health = event["Action"].partition(": ")
                attributes = event["Actor"]["Attributes"]
                code = attributes.get("exitCode")
                yield EngineEvent(
                    "health" if kind == "health_status" else kind,
                    attributes,
                    event["Actor"]["ID"],
                    int(code) if code is not None else None,
                    health,
                )
        finally:
            api.close()


class DockerPull:
    """One pull, over one connection: the engine goes on as long as that is open."""

    def __init__(
        self, api: docker.APIClient, reference: references.Reference, login: RegistryLogin | None, patience_s: float
    ) -> None:
        self._api: Any = api  # what streams is not part of its public face
        self._reference, self._login, self._patience_s = reference, login, patience_s
        self._connection: socket.socket | None = None
        self._is_closed = False

    def __iter__(self) -> Iterator[PullProgress]:
        try:
            with translated():
                yield from self._progress()
        finally:
            self._api.close()

    def _progress(self) -> Iterator[PullProgress]:
        reference, layers = self._reference, Layers()
        answer = self._ask()
        try:
            for line in self._api._stream_helper(answer, decode=True):
                if words := error_of(line):
                    raise pull_errors.pull_failed(reference, words, login=self._login)
                if layers.hear(line):
                    yield layers.progress
        finally:
            answer.close()
        if self._is_closed:
            raise errors.EngineUnavailable("The pull was broken off.")

    def _ask(self) -> requests.Response:
        reference, api = self._reference, self._api
        asked = {"fromImage": reference.name, "tag": reference.version}
        allowed = (FAST_S, self._patience_s)
        url, headers = api._url("/images/create"), _shown_to(reference, self._login, api)
        try:
            answer: requests.Response = api._post(url, params=asked, headers=headers, stream=True, timeout=allowed)
        except requests.ReadTimeout as error:
            words = f"nothing came from {reference.registry} for {self._patience_s:.0f} s"
            raise pull_errors.pull_failed(reference, words, PullFault.TIMEOUT) from error
        try:
            api._raise_for_status(answer)
        except docker.errors.APIError as error:
            raise pull_errors.pull_failed(reference, _all_words(error), login=self._login) from error
        found: Any = api._get_raw_response_socket(answer)
        self._connection = getattr(found, "_sock", found)
        self._connection.settimeout(None)  # it may be silent while other pulls have their turn
        if self._is_closed:
            self.close()
        return answer

    def close(self) -> None:
        self._is_closed = True
        if self._connection is not None:
            with contextlib.suppress(OSError):  # it has ended
                self._connection.shutdown(socket.SHUT_RDWR)


def _shown_to(reference: references.Reference, login: RegistryLogin | None, api: Any) -> dict[str, str | bytes]:
    """The header that holds the login, for the engine to show to the image's registry."""
    if login is None:
        header = docker.auth.get_config_header(api, reference.registry)
        return {"X-Registry-Auth": header} if header else {}
    return {"X-Registry-Auth": docker.auth.encode_header(_told(reference.registry, login))}


def _told(registry: str, login: RegistryLogin) -> dict[str, str]:
    """The login as the engine takes it."""
    if login.identity_token:
        return {"identitytoken": login.identity_token, "serveraddress": registry}
    return {"username": login.username, "password": login.password, "serveraddress": registry}


class _Followed:
    """What a container writes, until it ends or ``close`` is called by another thread."""

    def __init__(self, api: docker.APIClient, stream: Any) -> None:
        self._api, self._stream = api, stream

    def __iter__(self) -> Iterator[bytes]:
        with translated():
            yield from self._stream

    def close(self) -> None:
        with contextlib.suppress(docker.errors.DockerException, OSError):
            self._stream.close()
        self._api.close()


class AttachedTerminal:
    """A command on a terminal, over one hijacked connection."""

    LOOK_EVERY_MS = 500
    WRITE_S = 5.0
    """What is typed into a command that does not read it is dropped after that long."""

    def __init__(self, api: docker.APIClient, exec_id: str, stream: Any) -> None:
        self._api, self._exec_id, self._stream = api, exec_id, stream
        self._connection: socket.socket = getattr(stream, "_sock", stream)
        self._early = early_bytes(stream._response.raw._fp.fp, self._connection)
        self._connection.settimeout(self.WRITE_S)
        self._is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        if self._early:
            yield bytes(self._early)
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        while not self._is_closed:
            if not poll.poll(self.LOOK_EVERY_MS):
                continue
            try:
                chunk = self._connection.recv(65536)
            except OSError:
                return
            if not chunk:
                return
            yield chunk

    def write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # it has ended; the reader finds that out
            self._connection.sendall(data)

    def resize(self, columns: int, rows: int) -> None:
        with contextlib.suppress(BoilerhouseError), translated():  # it has ended
            self._api.exec_resize(self._exec_id, height=rows, width=columns)

    def exit_code(self) -> int | None:
        with contextlib.suppress(BoilerhouseError), translated():
            found = self._api.exec_inspect(self._exec_id)["ExitCode"]
            return int(found) if found is not None else None
        return None

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        with contextlib.suppress(BoilerhouseError), translated():
            seen = self._api.exec_inspect(self._exec_id)
            if seen["Running"]:
                host_processes.kill_tree(seen["Pid"], seen["ContainerID"])
        self._stream.close()


def _probed(found: dict[str, Any]) -> Probed | None:
    log = (found["State"].get("Health") or {}).get("Log")
    if not log:
        return None
    return Probed(_probe_command(found["Config"]), log[-1]["ExitCode"], log[-1]["Output"])


def _next_probe(found: dict[str, Any]) -> float | None:
    log = (found["State"].get("Health") or {}).get("Log")
    if not log:
        return None
    interval_ns = (found["Config"].get("Healthcheck") or {}).get("Interval") or 30 * 10**9
    return datetime.fromisoformat(log[-1]["End"]).timestamp() + interval_ns / 1e9


def _health_of(status: str) -> str:
    """From ``Up 5 minutes (healthy)`` of the engine's list."""
    for word in ("unhealthy", "healthy", "starting"):
        if f"({word})" in status or f"(health: {word})" in status:
            return word
    return ""
