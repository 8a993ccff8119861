"""An engine in this process's memory, to try many orders of events quickly. It proves nothing about a real one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from boilerhouse.core import failpoints
from pools import errors
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
    Pull,
    RegistryLogin,
    Terminal,
)  # fmt: skip


@dataclass
class Fake:
    plan: ContainerPlan
    runtime_id: str
    status: str = "created"
    exit_code: int = 0
    created_at: float = field(default_factory=time.time)


class FakeRuntime(ContainerRuntime):
    """``containers`` is what the engine has; tests change it behind Boilerhouse's back."""

    node = "test"

    def __init__(self) -> None:
        self.containers: dict[str, Fake] = {}
        self.is_down = False
        self.broken_images: set[str] = set()
        self.declared: dict[str, tuple[str, ...]] = {}
        """The VOLUMEs of images."""
        self.creates: list[ContainerPlan] = []
        self._number = 0

    def _check(self) -> None:
        if self.is_down:
            raise errors.EngineUnavailable("The container engine does not answer.")

    def find(self, name: str) -> Fake | None:
        self._check()
        return self.containers.get(name) or next((c for c in self.containers.values() if c.runtime_id == name), None)

    def capabilities(self) -> Capabilities:
        return Capabilities()

    def sees(self, path: str, labels: dict[str, str]) -> bool | None:
        return True

    def find_image(self, image: str) -> Image:
        self._check()
        name = image.removeprefix("sha256:")
        return Image(f"sha256:{name}", self.declared.get(name, ()))

    def pull(self, reference: Reference, login: RegistryLogin | None = None, patience_s: float = 120) -> Pull:
        raise NotImplementedError

    def named_digest(self, reference: Reference, login: RegistryLogin | None = None) -> str:
        self._check()
        raise NotImplementedError

    def log_in(self, registry: str, login: RegistryLogin) -> None:
        raise NotImplementedError

    def build(self, context: bytes, tag: str) -> Iterator[str]:
        yield ""

    def ensure_network(
        self, name: str, bridge: str, subnets: Iterator[str], labels: dict[str, str], subnet6: str = ""
    ) -> Network:
        self._check()
        return Network(name, bridge, "10.99.0.0/16", "10.99.0.1")

    def remove_network(self, name: str) -> None: ...

    def create(self, plan: ContainerPlan) -> Handle:
        self._check()
        if plan.name in self.containers:
            raise errors.NameTaken
        self._number += 1
        self.creates.append(plan)
        made = self.containers[plan.name] = Fake(plan, f"id{self._number}")
        failpoints.reach("engine.created")
        return Handle(self.node, made.runtime_id, plan.name)

    def start(self, name: str) -> None:
        found = self.find(name)
        if found is None:
            raise errors.ContainerMissing
        found.status = "exited" if found.plan.image.removeprefix("sha256:") in self.broken_images else "running"

    def stop(self, name: str, timeout_ms: int) -> Pending | None:
        if found := self.find(name):
            found.status = "exited"
        return None

    def remove(self, name: str) -> Pending | None:
        if found := self.find(name):
            del self.containers[found.plan.name]
        return None

    def pause(self, name: str) -> None:
        if found := self.find(name):
            found.status = "paused"

    def unpause(self, name: str) -> None:
        if (found := self.find(name)) and found.status == "paused":
            found.status = "running"

    def inspect(self, name: str, timeout_s: float | None = None) -> Observed | None:
        found = self.find(name)
        return found and self._observed(found)

    def inspect_made(self, plan: ContainerPlan) -> Observed | None:
        return self.inspect(plan.name)

    def _observed(self, found: Fake) -> Observed:
        handle = Handle(self.node, found.runtime_id, found.plan.name)
        return Observed(
            handle, found.plan.labels, found.status in ("running", "paused"), found.status, found.exit_code,
            created_at=found.created_at,
        )  # fmt: skip

    def list(self, labels: dict[str, str]) -> list[Observed]:
        self._check()
        seen = [self._observed(found) for found in self.containers.values()]
        return [one for one in seen if labels.items() <= one.labels.items()]

    def exec(
        self,
        name: str,
        command: tuple[str, ...],
        timeout_ms: int,
        stdin: bytes | None = None,
        limit_bytes: int = 1 << 20,
    ) -> Executed:
        found = self.find(name)
        if found is None or found.status != "running":
            raise errors.NotRunning
        return Executed(0, b"", b"", 1)

    def file(self, name: str, path: str, limit_bytes: int) -> File | None:
        return None

    def is_suspect(self) -> bool:
        return False

    def events(self, labels: dict[str, str]) -> Iterator[EngineEvent]:
        yield from ()

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
        return b""

    def terminal(self, name: str, command: tuple[str, ...], columns: int, rows: int) -> Terminal:
        raise NotImplementedError

    def follow_logs(self, name: str, tail: int, since: float | None = None, *, timestamps: bool = False) -> LogStream:
        raise NotImplementedError

    def ping(self, timeout_s: float = 10) -> str:
        self._check()
        return "fake"

    def relabel(self, name: str, **labels: str) -> None:
        found = self.containers[name]
        found.plan = replace(found.plan, labels={**found.plan.labels, **labels})
