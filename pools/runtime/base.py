"""What Boilerhouse asks of a container engine. Frozen values in and out, never the engine's own objects."""

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
"""How the labels begin that say whose a container is."""


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
    """Memory mounted as a directory; it counts towards the container's and is gone with it."""

    path: str
    size_mb: int
    mode: int
    """Of an image that has the path already, the engine takes the mode of that."""
    uid: int = 0
    gid: int = 0
    is_declared: bool = False
    """Whether the image declares a VOLUME there: the engine must not make one of its own."""
    is_exec: bool = False
    """Whether programs may run from it."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image at the engine."""

    id: str
    volumes: tuple[str, ...] = ()
    """The VOLUMEs that it declares, as it writes them."""
    working_dir: str = ""
    """Its WORKDIR; empty: none."""
    probe: Probe | None = None
    """Its HEALTHCHECK."""
    digests: tuple[str, ...] = ()
    """Where registries have it: ``repository@sha256:…``."""


@dataclass(frozen=True, slots=True)
class RegistryLogin:
    """What a registry is shown; never logged, never in an error."""

    username: str
    password: str = field(repr=False)
    identity_token: str = field(default="", repr=False)
    """In place of the password."""
    credential: str = ""
    """The id under which it is stored."""

    def scrub(self, words: str) -> str:
        """The words without the secret, in whatever spelling a registry may have sent it back."""
        for spelled in sorted(self._spellings(), key=len, reverse=True):
            words = words.replace(spelled, "…")
        return words

    def _spellings(self) -> set[str]:
        """A secret of up to three characters only as headers hold it: words would be torn apart, and guess it."""
        pair = f"{self.username}:{self.password}"
        found = {*_base64(pair)} if self.password else set()
        for secret in (one for one in (self.password, self.identity_token) if len(one) > 3):
            found |= {secret, quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1], *_base64(secret)}
        return found


def _base64(text: str) -> Iterator[str]:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        spelled = encode(text.encode()).decode()
        yield from (spelled, spelled.rstrip("="))


@dataclass(frozen=True, slots=True)
class PullProgress:
    """How far a pull is. Layers that were here before count as done, and their bytes do not."""

    bytes: int = 0
    known_bytes: int = 0
    """The sizes of the layers whose size is known: the engine says one when it begins with the layer."""
    estimated_bytes: int = 0
    """That, and for each layer of unknown size the mean of the others."""
    layers: int = 0
    layers_done: int = 0
    is_size_known: bool = False
    is_extracting: bool = False
    """All has been fetched, and is being unpacked."""
    is_in_line: bool = False
    """No layer of it is being fetched: the engine fetches only a few at once, of all pulls together."""
    digest: str = ""
    """Of the manifest, once the registry has named it."""


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
    """Its id: a tag that moves meanwhile changes nothing."""
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
    """Whether the engine does not run the image's HEALTHCHECK; without ``probe`` it does otherwise."""
    gid: int | None = None
    """None: the number of its uid."""
    groups: tuple[int, ...] = ()
    """Supplementary ones."""
    ulimits: tuple[Ulimit, ...] = ()
    devices: tuple[Device, ...] = ()
    gpus: Gpus | None = None
    extra_hosts: tuple[tuple[str, str], ...] = ()
    """Names and their addresses."""
    address6: str = ""
    """Of IPv6; empty for none."""


@dataclass(frozen=True, slots=True)
class Observed:
    """A container as the engine sees it now."""

    handle: Handle
    labels: dict[str, str]
    is_running: bool
    status: str
    exit_code: int | None = None
    pid: int = 0
    health: str = ""
    """``healthy``, ``unhealthy``, ``starting``; empty without a health check of the engine's."""
    is_oom_killed: bool = False
    created_at: float = 0.0
    """Unix seconds."""
    next_probe_at: float | None = None
    """When the engine's health check runs next, in Unix seconds; None where it has none, or has not run one yet."""
    probed: Probed | None = None


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """Something that the engine says has just happened to a container of ours. A hint: ``list`` is the truth."""

    kind: str
    """``die``, ``oom``, ``health`` or ``destroy``"""
    labels: dict[str, str]
    runtime_id: str
    exit_code: int | None = None
    health: str = ""


@dataclass(frozen=True, slots=True)
class Executed:
    """What a command did."""

    exit_code: int
    """127 where there is no such command, 126 where it cannot be executed."""
    stdout: bytes
    stderr: bytes
    duration_ms: int
    stdout_truncated: bool = False
    stderr_truncated: bool = False
    refusal: str = ""
    """Why it never began; empty for one that did."""

    @property
    def truncated(self) -> bool:
        return self.stdout_truncated or self.stderr_truncated


@dataclass(frozen=True, slots=True)
class File:
    """What lies at a path of a container."""

    kind: str
    """``file``, ``directory``, ``symbolic link`` or ``special file``"""
    size: int
    content: bytes | None = None
    """None of what is no file, or too large."""


@dataclass(frozen=True, slots=True)
class Network:
    name: str
    bridge: str
    subnet: str
    gateway: str
    subnet6: str = ""
    """Empty where containers have no IPv6."""

    def address6(self, address: str) -> str:
        """The IPv6 address of the container that has this one of IPv4; empty where there is none."""
        if not self.subnet6:
            return ""
        within = int(ipaddress.IPv4Address(address)) - int(ipaddress.IPv4Network(self.subnet).network_address)
        return str(ipaddress.IPv6Network(self.subnet6).network_address + within)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do; callers ask instead of knowing its kind."""

    version: str = ""
    """The engine's."""
    api_version: str = ""
    """Of the API that is spoken with it."""
    newest_api_version: str = ""
    """That it could speak."""
    cgroup_version: str = ""
    image_store: str = ""
    """``containerd``, or the name of the engine's storage driver."""
    is_rootless: bool = False
    remaps_users: bool = False
    """Whether a uid in a container is another one on the host."""
    cannot_limit: tuple[str, ...] = ()
    """What of a container the engine cannot limit, in words."""
    firewall: str = ""
    """What the engine sets its firewall rules with; empty where it does not say."""
    live_restore: bool = False
    cpus: int = 0
    memory_mb: int = 0
    """What the engine's machine has; 0 where it does not say."""
    runtimes: frozenset[str] = field(default_factory=frozenset)
    open_files: int | None = None
    """The highest limit of open files that a container may have; None where the engine gives what it is asked for, or
    nobody knows."""


@dataclass(frozen=True, slots=True)
class Pending:
    """The engine accepted something but has not done it yet, and why."""

    reason: str


class LogStream(Protocol):
    """Chunks of a log, as they are written; ``close`` ends it from any thread."""

    def __iter__(self) -> Iterator[bytes]: ...

    def close(self) -> None: ...


class Pull(Protocol):
    """The progress of a pull, again whenever something has moved; its end is the end of the pull.

    Raises PullFailed with the engine's words, EngineUnavailable, EngineTimeout when the engine says nothing at first.
    """

    def __iter__(self) -> Iterator[PullProgress]: ...

    def close(self) -> None:
        """Break it off, from any thread; the engine keeps the layers that are complete."""


class Terminal(Protocol):
    """A command on a terminal of its own: yields what it writes until it ends."""

    def __iter__(self) -> Iterator[bytes]: ...

    def write(self, data: bytes) -> None: ...

    def resize(self, columns: int, rows: int) -> None: ...

    def exit_code(self) -> int | None:
        """None while it runs, and where the engine does not know."""

    def close(self) -> None:
        """End it, with what it started; from any thread."""


class ContainerRuntime(ABC):
    """Verbs of an engine. Each has a deadline and raises only errors of ``pools.errors``.

    Removing or stopping what is not there is a success. Creating a name twice raises ``NameTaken``.
    """

    node: str

    @abstractmethod
    def capabilities(self) -> Capabilities: ...

    @abstractmethod
    def sees(self, path: str, labels: dict[str, str]) -> bool | None:
        """Whether the engine finds this directory under the same path; None where it has no image to ask with.

        What is made to find out carries ``labels`` and is gone afterwards.
        """

    @abstractmethod
    def find_image(self, image: str) -> Image:
        """The image of this name, digest or id as it is here. Raises ImageMissing."""

    @abstractmethod
    def pull(self, reference: Reference, login: RegistryLogin | None = None, patience_s: float = 120) -> Pull:
        """Fetch an image; it begins when the progress is read. Without ``login`` as root's Docker client would.

        ``patience_s`` is how long the engine may say nothing before the registry has answered.
        """

    @abstractmethod
    def named_digest(self, reference: Reference, login: RegistryLogin | None = None) -> str:
        """The digest of what the reference names at its registry now. Raises PullFailed with the registry's words."""

    @abstractmethod
    def log_in(self, registry: str, login: RegistryLogin) -> None:
        """Show the login to the registry once; nothing is kept. Raises LoginFailed with its words."""

    @abstractmethod
    def build(self, context: bytes, tag: str) -> Iterator[str]:
        """Build a tar archive with a Dockerfile into ``tag``; yield the lines of its output."""

    @abstractmethod
    def ensure_network(
        self, name: str, bridge: str, subnets: Iterator[str], labels: dict[str, str], subnet6: str = ""
    ) -> Network:
        """Have the deployment's network: the first subnet that is free, no traffic between containers.

        One with another subnet of IPv6 than ``subnet6`` stays while containers are in it, and is made anew after that.
        """

    @abstractmethod
    def remove_network(self, name: str) -> None: ...

    @abstractmethod
    def create(self, plan: ContainerPlan) -> Handle: ...

    @abstractmethod
    def start(self, name: str) -> None: ...

    @abstractmethod
    def stop(self, name: str, timeout_ms: int) -> Pending | None:
        """Stop it; afterwards ``inspect`` says it does not run, or Pending says why not yet."""

    @abstractmethod
    def remove(self, name: str) -> Pending | None: ...

    @abstractmethod
    def pause(self, name: str) -> None:
        """Hold all its processes still. One that is paused already stays so. Raises NotRunning, ContainerMissing."""

    @abstractmethod
    def unpause(self, name: str) -> None:
        """Let them go on. One that is not paused, or not there, is a success."""

    @abstractmethod
    def inspect(self, name: str, timeout_s: float | None = None) -> Observed | None:
        """What the engine knows of ``name``; None if nothing. Raises EngineTimeout after ``timeout_s``."""

    @abstractmethod
    def file(self, name: str, path: str, limit_bytes: int) -> File | None:
        """What lies at ``path`` of a container that was never started; None if nothing. No link is followed at its end.

        Its content where it is a file of ``limit_bytes`` at most. Raises ContainerMissing.
        """

    @abstractmethod
    def inspect_made(self, plan: ContainerPlan) -> Observed | None:
        """As ``inspect``, and compare one that runs with its plan. Raises NotAsAsked where it is another."""

    @abstractmethod
    def is_suspect(self) -> bool:
        """Whether the engine let a call of this process time out a moment ago: do not wait for it on a hot path."""

    @abstractmethod
    def events(self, labels: dict[str, str]) -> Iterator[EngineEvent]:
        """What happens to our containers from now on; ends, without an error, when the engine goes away."""

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
    ) -> bytes:
        """The last lines that the container wrote, after ``since`` (Unix seconds); the last bytes where they are more.

        With ``timestamps`` each line begins with its moment (RFC 3339, nanoseconds) and a space. With
        ``errors_only`` only what went to standard error. Raises ContainerMissing.
        """

    @abstractmethod
    def follow_logs(self, name: str, tail: int, since: float | None = None, *, timestamps: bool = False) -> LogStream:
        """As ``logs``, and then what the container writes, until it ends."""

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
        """Run a command inside and wait for its end, not for that of what it left in the background.

        Of each stream the first ``limit_bytes`` are kept. One that cannot begin ends with 126 or 127, as in a shell.
        It waits while the container is held still for a save.
        Raises NotRunning, ContainerMissing, and ExecTimedOut once it and its children were killed.
        """

    @abstractmethod
    def terminal(self, name: str, command: tuple[str, ...], columns: int, rows: int) -> Terminal:
        """Run a command inside on a terminal. Raises NotRunning, ContainerMissing."""

    @abstractmethod
    def ping(self, timeout_s: float = 10) -> str:
        """The engine's version. Raises EngineUnavailable."""
