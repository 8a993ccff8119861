"""The interface to a container engine. Values in and out are frozen, never the engine's own objects."""

from __future__ import annotations

import base64
import ipaddress
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import quote, quote_plus

from pools.references import Reference
from pools.spec import Device, Gpus, Ulimit

DEFAULT_OPEN_FILES = 4096
"""So many may a container's process open where its workload says nothing."""
OUR_LABELS = "boilerhouse."
"""The prefix of the labels that record a container's owner."""


@dataclass(frozen=True, slots=True)
class Handle:
    """A container at the engine."""

    node: str
    runtime_id: str
    name: str


@dataclass(frozen=True, slots=True)
class Mount:
    source: str
    target: str
    read_only: bool


@dataclass(frozen=True, slots=True)
class Tmpfs:
    """A RAM directory; it counts towards the container's memory and is lost with it."""

    path: str
    size_mb: int
    mode: int
    """If the image has the path already, the engine uses that one's mode."""
    uid: int = 0
    gid: int = 0
    is_declared: bool = False
    """Whether the image declares a VOLUME there, for which the engine must not create its own."""
    is_exec: bool = False
    """Whether programs may run from it."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image at the engine."""

    id: str
    volumes: tuple[str, ...] = ()
    """The VOLUMEs that it declares, as spelled in the image."""
    working_dir: str = ""
    """Its WORKDIR; empty: none."""
    probe: Probe | None = None
    """Its HEALTHCHECK."""
    digests: tuple[str, ...] = ()
    """Its digests in registries: ``repository@sha256:…``."""
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    size_bytes: int = 0
    """Its layers, of which other images may share some; 0 if the engine does not say."""


@dataclass(frozen=True, slots=True)
class RegistryLogin:
    """A login to a registry; never logged, never in an error."""

    username: str
    password: str = field(repr=False)
    identity_token: str = field(default="", repr=False)
    """Instead of the password."""
    credential: str = ""
    """The id of the stored credential."""

    def scrub(self, words: str) -> str:
        """The text without the secret, in any spelling that a registry may have returned."""
        for spelled in sorted(self._spellings(), key=len, reverse=True):
            words = words.replace(spelled, "…")
        return words

    def _spellings(self) -> set[str]:
        """A secret of up to three characters is removed only in the form used in headers: removing it everywhere would
        garble the text and reveal it."""
        pair = f"{self.username}:{self.password}"
        spellings = {*_base64(pair)} if self.password else set()
        for secret in (value for value in (self.password, self.identity_token) if len(value) > 3):
            spellings |= {
                secret,
                quote(secret, safe=""),
                quote_plus(secret),
                json.dumps(secret)[1:-1],
                *_base64(secret),
            }
        return spellings


def _base64(text: str) -> Iterator[str]:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        spelled = encode(text.encode()).decode()
        yield from (spelled, spelled.rstrip("="))


@dataclass(frozen=True, slots=True)
class PullProgress:
    """The progress of a pull. Layers that existed before count as done, but not their bytes."""

    bytes: int = 0
    known_bytes: int = 0
    """The total of the known layer sizes; the engine reports a size when it starts the layer."""
    estimated_bytes: int = 0
    """The total, with the mean of the known sizes for each unknown one."""
    layers: int = 0
    layers_done: int = 0
    is_size_known: bool = False
    is_extracting: bool = False
    """Everything has been fetched and is being unpacked."""
    is_in_line: bool = False
    """No layer is being fetched: the engine fetches only a few at a time, of all pulls together."""
    digest: str = ""
    """The digest of the manifest, once the registry has named it."""


@dataclass(frozen=True, slots=True)
class Published:
    container_port: int
    protocol: str
    host: str
    host_port: int


@dataclass(frozen=True, slots=True)
class Probe:
    command: tuple[str, ...]
    interval_ms: int
    timeout_ms: int
    retries: int
    start_period_ms: int


@dataclass(frozen=True, slots=True)
class Probed:
    """The last run of the engine's health check."""

    command: tuple[str, ...]
    exit_code: int
    output: str


@dataclass(frozen=True, slots=True)
class ContainerPlan:
    """Everything the engine must know to create a container."""

    name: str
    image: str
    """Its id, because a tag could move meanwhile."""
    command: tuple[str, ...]
    environment: dict[str, str]
    labels: dict[str, str]
    uid: int
    mounts: tuple[Mount, ...]
    network: str
    """Name of a network, or ``none``, or ``host``."""
    address: str | None
    dns: tuple[str, ...]
    ports: tuple[Published, ...]
    exposed: tuple[tuple[int, str], ...]
    read_only_root: bool
    cpus: float
    memory_mb: int
    pids_limit: int
    shm_mb: int
    tmpfs: tuple[Tmpfs, ...]
    placeholder: str
    """An empty directory on the host that is never written to."""
    runtime: str | None
    probe: Probe | None
    stop_timeout_ms: int
    entrypoint: tuple[str, ...] | None = None
    """None: the image's own; empty: none."""
    working_dir: str | None = None
    """None: the image's own."""
    init: bool = True
    """Whether the engine's init is process 1."""
    stop_signal: str | None = None
    """None: the image's own, else SIGTERM."""
    is_probe_off: bool = False
    """Whether the image's HEALTHCHECK is disabled; otherwise the engine runs it if there is no ``probe``."""
    gid: int | None = None
    """None: the number of its uid."""
    groups: tuple[int, ...] = ()
    """Supplementary groups."""
    ulimits: tuple[Ulimit, ...] = ()
    devices: tuple[Device, ...] = ()
    gpus: Gpus | None = None
    extra_hosts: tuple[tuple[str, str], ...] = ()
    """Host names and their addresses."""
    address6: str = ""
    """The IPv6 address; empty for none."""


@dataclass(frozen=True, slots=True)
class Observed:
    """A container's current state at the engine."""

    handle: Handle
    labels: dict[str, str]
    is_running: bool
    status: str
    exit_code: int | None = None
    pid: int = 0
    health: str = ""
    """``healthy``, ``unhealthy``, ``starting``; empty if the engine runs no health check."""
    is_oom_killed: bool = False
    created_at: float = 0.0
    """Unix seconds."""
    next_probe_at: float | None = None
    """When the engine's health check runs next, in Unix seconds; None without one, or before the first run."""
    probed: Probed | None = None


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """An event of the engine about one of our containers. Only a hint: ``list`` is authoritative."""

    kind: str
    """``die``, ``oom``, ``health`` or ``destroy``"""
    labels: dict[str, str]
    runtime_id: str
    exit_code: int | None = None
    health: str = ""


@dataclass(frozen=True, slots=True)
class Executed:
    """The result of a command."""

    exit_code: int
    """127 if the command does not exist, 126 if it cannot be executed."""
    stdout: bytes
    stderr: bytes
    duration_ms: int
    stdout_truncated: bool = False
    stderr_truncated: bool = False
    refusal: str = ""
    """Why it could not be started; empty if it was."""

    @property
    def truncated(self) -> bool:
        return self.stdout_truncated or self.stderr_truncated


@dataclass(frozen=True, slots=True)
class File:
    """What is at a path in a container."""

    kind: str
    """``file``, ``directory``, ``symbolic link`` or ``special file``"""
    size: int
    content: bytes | None = None
    """None if it is not a file, or too large."""


@dataclass(frozen=True, slots=True)
class Network:
    name: str
    bridge: str
    subnet: str
    gateway: str
    subnet6: str = ""
    """Empty if containers have no IPv6."""

    def address6(self, address: str) -> str:
        """The IPv6 address of the container with this IPv4 address; empty if there is none."""
        if not self.subnet6:
            return ""
        within = int(ipaddress.IPv4Address(address)) - int(ipaddress.IPv4Network(self.subnet).network_address)
        return str(ipaddress.IPv6Network(self.subnet6).network_address + within)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do, so that callers need not know its kind."""

    version: str = ""
    """The engine's version."""
    api_version: str = ""
    """The API version in use."""
    newest_api_version: str = ""
    """The newest API version that the engine supports."""
    cgroup_version: str = ""
    image_store: str = ""
    """``containerd``, or the name of the engine's storage driver."""
    is_rootless: bool = False
    remaps_users: bool = False
    """Whether a uid in a container is another one on the host."""
    cannot_limit: tuple[str, ...] = ()
    """The limits that the engine cannot enforce, in words."""
    firewall: str = ""
    """The backend of the engine's firewall rules; empty if it does not report it."""
    live_restore: bool = False
    cpus: int = 0
    memory_mb: int = 0
    """The resources of the engine's machine; 0 if it does not report them."""
    runtimes: frozenset[str] = field(default_factory=frozenset)
    open_files: int | None = None
    """The highest limit of open files that a container may have; None where the engine gives what it is asked for, or
    nobody knows."""


@dataclass(frozen=True, slots=True)
class Pending:
    """The engine accepted the request but has not completed it; the detail says why."""

    reason: str


class LogStream(Protocol):
    """Chunks of a log as they are written; ``close`` ends it, from any thread."""

    def __iter__(self) -> Iterator[bytes]: ...

    def close(self) -> None: ...


class Pull(Protocol):
    """The progress of a pull, repeated on each change; iteration ends with the pull.

    Raises PullFailed with the engine's message, EngineUnavailable, EngineTimeout if the engine sends nothing at first.
    """

    def __iter__(self) -> Iterator[PullProgress]: ...

    def close(self) -> None:
        """Abort it, from any thread; the engine keeps complete layers."""


class Terminal(Protocol):
    """A command on its own terminal: yields its output until it ends."""

    def __iter__(self) -> Iterator[bytes]: ...

    def write(self, data: bytes) -> None: ...

    def resize(self, columns: int, rows: int) -> None: ...

    def exit_code(self) -> int | None:
        """None while it runs, or if the engine does not know."""

    def close(self) -> None:
        """End the command and its children, from any thread."""


class ContainerRuntime(ABC):
    """Operations of an engine. Each has a deadline and raises only errors of ``pools.errors``.

    Removing or stopping a container that does not exist succeeds. Creating a name twice raises ``NameTaken``.
    """

    node: str

    @abstractmethod
    def capabilities(self) -> Capabilities: ...

    @abstractmethod
    def sees(self, path: str, labels: dict[str, str]) -> bool | None:
        """Whether the engine sees this directory under the same path; None if it has no image to check with.

        A container created for the check carries ``labels`` and is removed afterwards.
        """

    @abstractmethod
    def find_image(self, image: str) -> Image:
        """The local image of this name, digest or id. Raises ImageMissing."""

    @abstractmethod
    def pull(self, reference: Reference, login: RegistryLogin | None = None, patience_s: float = 120) -> Pull:
        """Fetch an image; it starts when the progress is read. Without ``login``, root's Docker client configuration
        applies.

        ``patience_s`` is how long the engine may be silent before the registry has answered.
        """

    @abstractmethod
    def named_digest(self, reference: Reference, login: RegistryLogin | None = None) -> str:
        """The digest that the reference names at its registry now. Raises PullFailed with the registry's message."""

    @abstractmethod
    def log_in(self, registry: str, login: RegistryLogin) -> None:
        """Test the login with the registry; nothing is stored. Raises LoginFailed with its message."""

    @abstractmethod
    def build(self, context: bytes, tag: str) -> Iterator[str]:
        """Build a tar archive with a Dockerfile into ``tag``; yield the lines of its output."""

    @abstractmethod
    def ensure_network(
        self, name: str, bridge: str, subnets: Iterator[str], labels: dict[str, str], subnet6: str = ""
    ) -> Network:
        """Create the deployment's network if necessary: the first free subnet, no traffic between containers.

        A network with another IPv6 subnet than ``subnet6`` stays while containers are in it, and is then created again.
        """

    @abstractmethod
    def remove_network(self, name: str) -> None: ...

    @abstractmethod
    def create(self, plan: ContainerPlan) -> Handle: ...

    @abstractmethod
    def start(self, name: str) -> None: ...

    @abstractmethod
    def stop(self, name: str, timeout_ms: int) -> Observed | None:
        """Stop it; return what ``inspect`` reports afterwards. It still runs if the engine could not stop it."""

    @abstractmethod
    def remove(self, name: str) -> Pending | None: ...

    @abstractmethod
    def pause(self, name: str) -> None:
        """Pause all its processes. One that is paused already stays paused. Raises NotRunning, ContainerMissing."""

    @abstractmethod
    def unpause(self, name: str) -> None:
        """Resume them. One that is not paused, or does not exist, is a success."""

    @abstractmethod
    def inspect(self, name: str, timeout_s: float | None = None) -> Observed | None:
        """The state of ``name`` at the engine; None if it does not exist. Raises EngineTimeout after ``timeout_s``."""

    @abstractmethod
    def file(self, name: str, path: str, limit_bytes: int) -> File | None:
        """What is at ``path`` of a container that was never started; None if nothing. A link at its end is not
        followed.

        Includes the content of a file of at most ``limit_bytes``. Raises ContainerMissing.
        """

    @abstractmethod
    def inspect_made(self, plan: ContainerPlan) -> Observed | None:
        """As ``inspect``, and compare a running container with its plan. Raises NotAsAsked if it differs."""

    @abstractmethod
    def is_suspect(self) -> bool:
        """Whether a call of this process timed out recently: a hot path should not wait for the engine."""

    @abstractmethod
    def events(self, labels: dict[str, str]) -> Iterator[EngineEvent]:
        """Events of our containers from now on; ends without an error if the engine stops."""

    @abstractmethod
    def logs(
        self,
        name: str,
        tail: int,
        since: float | None = None,
        limit_bytes: int = 64 * 1024,
        *,
        timestamps: bool = False,
        errors_only: bool = False,
        timeout_s: float | None = None,
    ) -> bytes:
        """The last lines of the container's output after ``since`` (Unix seconds), at most the last bytes.

        With ``timestamps``, each line begins with its time (RFC 3339, nanoseconds) and a space. With ``errors_only``,
        only standard error. With ``timeout_s``, what was read by then. Raises ContainerMissing.
        """

    @abstractmethod
    def follow_logs(self, name: str, tail: int, since: float | None = None, *, timestamps: bool = False) -> LogStream:
        """As ``logs``, followed by new output until the container ends."""

    @abstractmethod
    def list(self, labels: dict[str, str]) -> list[Observed]: ...

    @abstractmethod
    def exec(
        self,
        name: str,
        command: tuple[str, ...],
        timeout_ms: int,
        stdin: bytes | None = None,
        limit_bytes: int = 1 << 20,
    ) -> Executed:
        """Run a command inside and wait for its end, but not for its background processes.

        Of each stream the first ``limit_bytes`` are kept. A command that cannot start ends with 126 or 127, as in a
        shell. It waits while the container is frozen for a save. Raises NotRunning, ContainerMissing, and ExecTimedOut
        after it and its children were killed.
        """

    @abstractmethod
    def terminal(self, name: str, command: tuple[str, ...], columns: int, rows: int) -> Terminal:
        """Run a command inside on a terminal. Raises NotRunning, ContainerMissing."""

    @abstractmethod
    def ping(self, timeout_s: float = 10) -> str:
        """The engine's version. Raises EngineUnavailable."""
