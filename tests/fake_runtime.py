"""An engine in this process's memory, chosen by ``BOILERHOUSE_RUNTIME``, to try many orders of events quickly.

``tests/pools/test_runtime_contract.py`` holds it to what the real one does. It has no processes, so ``pid`` is 0.
"""

from __future__ import annotations

import io
import ipaddress
import queue
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from boilerhouse.core import failpoints
from pools import errors, pull_errors
from pools.references import Reference
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
    Probed,
    Pull,
    PullProgress,
    RegistryLogin,
    Terminal,
)  # fmt: skip
from tests.fake_programs import Ran, run

STANDS_STILL_S = 5.0
TERMINATED, KILLED = 143, 137


@dataclass(frozen=True)
class Line:
    """A line of a container's output."""

    at: float
    text: bytes
    is_error: bool


@dataclass
class Fake:
    """A container of the engine."""

    plan: ContainerPlan
    runtime_id: str
    status: str = "created"
    exit_code: int = 0
    created_at: float = field(default_factory=time.time)
    lines: list[Line] = field(default_factory=list)

    @property
    def is_running(self) -> bool:
        return self.status in ("running", "paused")


@dataclass(frozen=True)
class Published:
    """An image at a registry."""

    digest: str
    login: RegistryLogin | None = None
    """Who may pull it; None: everybody."""


class FakeRuntime(ContainerRuntime):
    """``containers`` is what the engine has; tests change it behind Boilerhouse's back."""

    node = "test"

    def __init__(self, base_url: str = "fake://") -> None:
        """``base_url`` tells engines apart, as with the real one."""
        self.base_url = base_url
        self.containers: dict[str, Fake] = {}
        self.networks: dict[str, Network] = {}
        self.is_down = False
        self.absent: set[str] = set()
        """Names of images that are not here; all others are."""
        self.broken_images: set[str] = set()
        """What is started of them ends at once."""
        self.declared: dict[str, tuple[str, ...]] = {}
        """The VOLUMEs of images."""
        self.files: dict[str, bytes] = {}
        """Of every image: their content by path."""
        self.registry: dict[str, Published] = {}
        """What can be pulled, by its whole name."""
        self.creates: list[ContainerPlan] = []
        self._listeners: list[tuple[dict[str, str], queue.Queue[EngineEvent]]] = []
        self._number = 0

    # The engine ------------------------------------------------------------------------------------

    def _check(self) -> None:
        if self.is_down:
            raise errors.EngineUnavailable("The container engine does not answer.")

    def find(self, name: str) -> Fake | None:
        self._check()
        return self.containers.get(name) or next((c for c in self.containers.values() if c.runtime_id == name), None)

    def _existing(self, name: str) -> Fake:
        found = self.find(name)
        if found is None:
            raise errors.ContainerMissing(f"No such container: {name}")
        return found

    def ping(self, timeout_s: float = 10) -> str:
        self._check()
        return "fake"

    def capabilities(self) -> Capabilities:
        self._check()
        return Capabilities(version="fake")

    def sees(self, path: str, labels: dict[str, str]) -> bool | None:
        self._check()
        return Path(path).is_dir()

    def is_suspect(self) -> bool:
        return False

    def events(self, labels: dict[str, str]) -> Iterator[EngineEvent]:
        self._check()
        heard: queue.Queue[EngineEvent] = queue.Queue()
        self._listeners.append((labels, heard))
        return self._heard(heard)

    def _heard(self, heard: queue.Queue[EngineEvent]) -> Iterator[EngineEvent]:
        while not self.is_down:
            try:
                yield heard.get(timeout=0.05)
            except queue.Empty:
                continue

    def _tell(self, kind: str, of: Fake, exit_code: int | None = None, health: str = "") -> None:
        for labels, heard in self._listeners:
            if labels.items() <= of.plan.labels.items():
                heard.put(EngineEvent(kind, of.plan.labels, of.runtime_id, exit_code, health))

    # Images and registries ---------------------------------------------------------------------------

    def find_image(self, image: str) -> Image:
        self._check()
        name = image.removeprefix("sha256:")
        if name in self.absent:
            raise errors.ImageMissing(f"No such image: {image}")
        return Image(f"sha256:{name}", self.declared.get(name, ()), size_bytes=5_000_000)

    def pull(self, reference: Reference, login: RegistryLogin | None = None, patience_s: float = 120) -> Pull:
        self._check()
        return FakePull(self, reference, login)

    def named_digest(self, reference: Reference, login: RegistryLogin | None = None) -> str:
        self._check()
        return self.published(reference, login).digest

    def published(self, reference: Reference, login: RegistryLogin | None) -> Published:
        """What the registry has by this name. Raises PullFailed."""
        known = [one for one in self.registry if one.startswith(f"{reference.registry}/")]
        needed = {self.registry[one].login for one in known} - {None}
        if needed and login not in needed:
            raise pull_errors.pull_failed(reference, "unauthorized: authentication required", login=login)
        if reference.text not in self.registry:
            raise pull_errors.pull_failed(reference, f"manifest for {reference.text} not found: manifest unknown")
        return self.registry[reference.text]

    def log_in(self, registry: str, login: RegistryLogin) -> None:
        self._check()
        if login not in {one.login for name, one in self.registry.items() if name.startswith(f"{registry}/")}:
            raise pull_errors.login_failed(registry, "unauthorized: authentication required", login)

    def build(self, context: bytes, tag: str) -> Iterator[str]:
        self._check()
        with tarfile.open(fileobj=io.BytesIO(context)) as archive:
            if not {"Dockerfile", "./Dockerfile"} & set(archive.getnames()):
                raise errors.EngineFailure("Cannot locate specified Dockerfile: Dockerfile")
        self.absent.discard(tag)
        yield f"Successfully tagged {tag}"

    # Networks ----------------------------------------------------------------------------------------

    def ensure_network(
        self, name: str, bridge: str, subnets: Iterator[str], labels: dict[str, str], subnet6: str = ""
    ) -> Network:
        self._check()
        if known := self.networks.get(name):
            if known.subnet6 == subnet6 or self._is_in_use(name):
                return known
            self.networks[name] = replace(known, subnet6=subnet6)
            return self.networks[name]
        taken = [ipaddress.ip_network(one.subnet) for one in self.networks.values()]
        for subnet in map(ipaddress.ip_network, subnets):
            if not any(subnet.overlaps(other) for other in taken):
                self.networks[name] = Network(name, bridge, str(subnet), str(subnet[1]), subnet6)
                return self.networks[name]
        raise errors.HostNotReady("No /16 network is free on this host; set BOILERHOUSE_SUBNET.")

    def _is_in_use(self, network: str) -> bool:
        return any(one.is_running and one.plan.network == network for one in self.containers.values())

    def remove_network(self, name: str) -> None:
        self._check()
        if self._is_in_use(name):
            raise errors.EngineFailure(f"error while removing network: network {name} has active endpoints")
        self.networks.pop(name, None)

    # Containers --------------------------------------------------------------------------------------

    def create(self, plan: ContainerPlan) -> Handle:
        self._check()
        self.find_image(plan.image)
        if plan.name in self.containers:
            raise errors.NameTaken(f"The name {plan.name} is already in use.")
        self._number += 1
        self.creates.append(plan)
        made = self.containers[plan.name] = Fake(plan, f"id{self._number}")
        failpoints.reach("engine.created")
        return Handle(self.node, made.runtime_id, plan.name)

    def start(self, name: str) -> None:
        found = self._existing(name)
        if found.is_running:
            return
        did = self._main(found)
        if did.refusal:
            raise errors.BadCommand(did.refusal)
        found.status = "running"
        self._write(found, did)
        if not did.seconds:
            self._end(found, did.exit_code)
        elif found.plan.probe:
            self._tell("health", found, health=self._health(found))

    def _main(self, found: Fake) -> Ran:
        if found.plan.image.removeprefix("sha256:") in self.broken_images:
            return Ran()
        if not found.plan.command:  # the image's own
            return Ran(seconds=float("inf"))
        return run(found.plan.command, b"", self.files)

    def _write(self, found: Fake, did: Ran) -> None:
        now = time.time()
        for is_error, text in ((False, did.out), (True, did.err)):
            found.lines += [Line(now, line, is_error) for line in text.splitlines(keepends=True)]

    def _end(self, found: Fake, exit_code: int) -> None:
        if found.is_running:
            found.status, found.exit_code = "exited", exit_code
            self._tell("die", found, exit_code)

    def stop(self, name: str, timeout_ms: int) -> Observed | None:
        if found := self.find(name):
            self._end(found, TERMINATED if timeout_ms else KILLED)
        return self.inspect(name)

    def remove(self, name: str) -> Pending | None:
        if found := self.find(name):
            self._end(found, KILLED)
            del self.containers[found.plan.name]
            self._tell("destroy", found)
        return None

    def pause(self, name: str) -> None:
        found = self._existing(name)
        if not found.is_running:
            raise errors.NotRunning(f"Container {name} is not running")
        found.status = "paused"

    def unpause(self, name: str) -> None:
        if (found := self.find(name)) and found.status == "paused":
            found.status = "running"

    def inspect(self, name: str, timeout_s: float | None = None) -> Observed | None:
        found = self.find(name)
        return found and self._observed(found)

    def inspect_made(self, plan: ContainerPlan) -> Observed | None:
        found = self.find(plan.name)
        if found and found.is_running and found.plan != plan:
            raise errors.NotAsAsked("The engine created a container that differs from the request.")
        return found and self._observed(found)

    def _observed(self, found: Fake) -> Observed:
        handle = Handle(self.node, found.runtime_id, found.plan.name)
        health = self._health(found)
        probed = None
        if health and (probe := found.plan.probe):
            did = run(probe.command, b"", self.files)
            probed = Probed(probe.command, did.exit_code, (did.out + did.err).decode())
        return Observed(
            handle, found.plan.labels, found.is_running, found.status, found.exit_code, health=health,
            created_at=found.created_at, probed=probed,
        )  # fmt: skip

    def _health(self, found: Fake) -> str:
        if not found.is_running or not (probe := found.plan.probe):
            return ""
        return "unhealthy" if run(probe.command, b"", self.files).exit_code else "healthy"

    def list(self, labels: dict[str, str]) -> list[Observed]:
        self._check()
        seen = [self._observed(found) for found in self.containers.values()]
        return [one for one in seen if labels.items() <= one.labels.items()]

    def relabel(self, name: str, **labels: str) -> None:
        found = self.containers[name]
        found.plan = replace(found.plan, labels={**found.plan.labels, **labels})

    # In containers -----------------------------------------------------------------------------------

    def _running(self, name: str) -> Fake:
        found = self._existing(name)
        if not found.is_running:
            raise errors.NotRunning(f"Container {name} is not running")
        return found

    def exec(
        self,
        name: str,
        command: tuple[str, ...],
        timeout_ms: int,
        stdin: bytes | None = None,
        limit_bytes: int = 1 << 20,
    ) -> Executed:
        found, until = self._running(name), time.monotonic() + STANDS_STILL_S
        while found.status == "paused":
            if time.monotonic() > until:
                raise errors.EngineFailure(f"Container {name} is paused, unpause the container before exec")
            time.sleep(0.02)
        did = run(command, stdin or b"", self.files)
        time.sleep(min(did.seconds, timeout_ms / 1000))
        out, err = did.out[:limit_bytes], did.err[:limit_bytes]
        cut = len(out) < len(did.out), len(err) < len(did.err)
        if did.seconds > timeout_ms / 1000:
            late = f"The command did not end within {timeout_ms} ms and was killed."
            raise errors.ExecTimedOut(late, out, err, stdout_truncated=cut[0], stderr_truncated=cut[1])
        return Executed(did.exit_code, out, err, round(did.seconds * 1000), *cut, refusal=did.refusal)

    def terminal(self, name: str, command: tuple[str, ...], columns: int, rows: int) -> Terminal:
        self._running(name)
        return FakeTerminal(command, self.files)

    def file(self, name: str, path: str, limit_bytes: int) -> File | None:
        self._existing(name)
        if (content := self.files.get(path)) is not None:
            return File("file", len(content), content if len(content) <= limit_bytes else None)
        inside = any(one.startswith(f"{path.rstrip('/')}/") for one in self.files)
        return File("directory", 0) if inside else None

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
        lines = [one for one in self._existing(name).lines if one.at > (since or 0) and one.is_error >= errors_only]
        return b"".join(_shown(one, timestamps) for one in lines[-tail:])[-limit_bytes:]

    def follow_logs(self, name: str, tail: int, since: float | None = None, *, timestamps: bool = False) -> LogStream:
        return Followed(self, self._existing(name), self.logs(name, tail, since, timestamps=timestamps), timestamps)


def _shown(line: Line, timestamps: bool) -> bytes:
    if not timestamps:
        return line.text
    moment = datetime.fromtimestamp(line.at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
    return f"{moment}000Z ".encode() + line.text


class Followed:
    """What a container writes, until it ends or ``close`` is called."""

    def __init__(self, engine: FakeRuntime, found: Fake, first: bytes, timestamps: bool) -> None:
        self._engine, self._found, self._first, self._timestamps = engine, found, first, timestamps
        self._position, self._is_closed = len(found.lines), False

    def __iter__(self) -> Iterator[bytes]:
        if self._first:
            yield self._first
        while not self._is_closed:
            has_ended = not self._found.is_running
            lines = self._found.lines[self._position :]
            self._position += len(lines)
            yield from (_shown(one, self._timestamps) for one in lines)
            if has_ended:
                return
            time.sleep(0.02)

    def close(self) -> None:
        self._is_closed = True


class FakePull:
    """A pull of one layer."""

    def __init__(self, engine: FakeRuntime, reference: Reference, login: RegistryLogin | None) -> None:
        self._engine, self._reference, self._login = engine, reference, login
        self._is_closed = False

    def __iter__(self) -> Iterator[PullProgress]:
        self._engine.ping()
        digest = self._engine.published(self._reference, self._login).digest
        for done in (0, 1):
            if self._is_closed:
                raise errors.EngineUnavailable("The pull was aborted.")
            yield PullProgress(layers=1, layers_done=done, digest=digest)
        self._engine.absent.discard(self._reference.text)

    def close(self) -> None:
        self._is_closed = True


class FakeTerminal:
    """A program on a terminal: it echoes what is typed, and a program that reads writes it once more."""

    def __init__(self, command: tuple[str, ...], files: dict[str, bytes]) -> None:
        self._is_reader = command == ("cat",)
        self._ran = run(command, b"", files)
        self._chunks: queue.Queue[bytes] = queue.Queue()
        self._chunks.put(_on_terminal(self._ran.out + self._ran.err))
        self._is_lasting, self._is_closed = self._is_reader or self._ran.seconds > 0, False

    def __iter__(self) -> Iterator[bytes]:
        while not self._is_closed:
            try:
                if chunk := self._chunks.get(timeout=0.05):
                    yield chunk
            except queue.Empty:
                if not self._is_lasting:
                    return

    def write(self, data: bytes) -> None:
        self._chunks.put(_on_terminal(data) * (1 + self._is_reader))

    def resize(self, columns: int, rows: int) -> None: ...

    def exit_code(self) -> int | None:
        return None if self._is_lasting else self._ran.exit_code

    def close(self) -> None:
        self._is_closed = True


def _on_terminal(text: bytes) -> bytes:
    return text.replace(b"\n", b"\r\n")
