"""The engine of demo data: it has the logs of their containers, and nothing else."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NoReturn

from pools.errors import EngineUnavailable
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

ABSENT = "These are demo data: there is no engine, and nothing runs."
PATHS = ("/healthz", "/api/items", "/api/items/42", "/api/search?q=tea", "/static/app.js")
RARE = (
    '{"level": "info", "msg": "claim received", "config": "/run/secrets/config.json"}',
    "WARN slow query: 812 ms for SELECT … FROM items",
    '{"level": "info", "msg": "checkpoint written", "bytes": 48210}',
    "ERROR upstream answered 502 for /api/search; retry 1 of 3",
)
STEP_S = 7


class _Silent:
    """A log that says nothing more."""

    def __init__(self) -> None:
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        self._closed.wait()
        return iter(())

    def close(self) -> None:
        self._closed.set()


class DemoEngine(ContainerRuntime):
    node = "demo"

    def logs(
        self, name: str, tail: int, since: float | None = None, limit_bytes: int = 64 * 1024, *,
        timestamps: bool = False, errors_only: bool = False, timeout_s: float | None = None,
    ) -> bytes:  # fmt: skip
        """The same lines for the same container and minute."""
        end, made_at = datetime.now(UTC).replace(second=0, microsecond=0), _made_at(name)
        chance = random.Random(name)  # noqa: S311
        lines = []
        for number in range(min(tail, 180), 0, -1):
            at = end - timedelta(seconds=STEP_S * number, microseconds=chance.randrange(1_000_000))
            text = f"{chance.choice(('GET', 'GET', 'POST'))} {chance.choice(PATHS)} 200 {chance.randrange(2, 90)} ms"
            if chance.random() < 0.06:
                text = chance.choice(RARE)
            if at.timestamp() > max(since or 0, made_at):
                lines.append(f"{at.isoformat().replace('+00:00', 'Z')} {text}" if timestamps else text)
        return "".join(f"{line}\n" for line in lines).encode()[-limit_bytes:]

    def follow_logs(self, name: str, tail: int, since: float | None = None, *, timestamps: bool = False) -> LogStream:
        return _Silent()

    def capabilities(self) -> Capabilities:
        return Capabilities(version="demo")

    def find_image(self, image: str) -> Image:
        _refuse()

    def sees(self, path: str, labels: dict[str, str]) -> bool | None:
        return None

    def is_suspect(self) -> bool:
        return False

    def inspect(self, name: str, timeout_s: float | None = None) -> Observed | None:
        return Observed(Handle(self.node, name, name), {}, is_running=True, status="running", created_at=_made_at(name))

    def inspect_made(self, plan: ContainerPlan) -> Observed | None:
        _refuse()

    def pull(self, reference: Reference, login: RegistryLogin | None = None, patience_s: float = 120) -> Pull:
        _refuse()

    def named_digest(self, reference: Reference, login: RegistryLogin | None = None) -> str:
        _refuse()

    def log_in(self, registry: str, login: RegistryLogin) -> None:
        _refuse()

    def build(self, context: bytes, tag: str) -> Iterator[str]:
        _refuse()

    def ensure_network(
        self, name: str, bridge: str, subnets: Iterator[str], labels: dict[str, str], subnet6: str = ""
    ) -> Network:
        _refuse()

    def remove_network(self, name: str) -> None:
        _refuse()

    def create(self, plan: ContainerPlan) -> Handle:
        _refuse()

    def start(self, name: str) -> None:
        _refuse()

    def stop(self, name: str, timeout_ms: int) -> Observed | None:
        _refuse()

    def remove(self, name: str) -> Pending | None:
        _refuse()

    def pause(self, name: str) -> None:
        _refuse()

    def unpause(self, name: str) -> None:
        _refuse()

    def file(self, name: str, path: str, limit_bytes: int) -> File | None:
        _refuse()

    def events(self, labels: dict[str, str]) -> Iterator[EngineEvent]:
        _refuse()

    def list(self, labels: dict[str, str]) -> list[Observed]:
        _refuse()

    def exec(
        self, name: str, command: tuple[str, ...], timeout_ms: int, stdin: bytes | None = None,
        limit_bytes: int = 1 << 20,
    ) -> Executed:  # fmt: skip
        _refuse()

    def terminal(self, name: str, command: tuple[str, ...], columns: int, rows: int) -> Terminal:
        _refuse()

    def ping(self, timeout_s: float = 10) -> str:
        _refuse()


def _made_at(name: str) -> float:
    """Unix seconds, from the id in a container's name."""
    match = re.search(r"([0-9a-f]{8})-([0-9a-f]{4})-", name)
    return int(match[1] + match[2], 16) / 1000 if match else 0.0


def _refuse() -> NoReturn:
    raise EngineUnavailable(ABSENT)
