"""A web process, and a tenant whose container is a real guest agent on this machine, without an engine."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from boilerhouse.process import pids
from pools import guest
from pools.guest import connections, sealing
from tests.guest_agent import Agent
from tests.webserver import WebServer, running

ROWS = """
from boilerhouse.core.api_keys import create_key
from pools.models import WorkloadVersion
from tests.make import make_held
row = make_held(tenant="alice")
version = WorkloadVersion.objects.get(pk=row.container.version_id)
for volume in version.spec_json["volumes"]:
    volume["container_path"] = HOME if volume["name"] == "state" else f"{HOME}-{volume['name']}"
version.save()
key = create_key(name="alice", role="tenant", tenant_ids=["alice"])[1]
other = create_key(name="bob", role="tenant", tenant_ids=["bob"])[1]
print("@", row.container_ref, key, other)
"""
STATE = "from tenants.models import Assignment; Assignment.objects.update(state='{}')"


class Held:
    """Alice's container: ``home`` is its first writable volume. ``other`` is the key of another tenant."""

    def __init__(self, web: WebServer, home: Path, container: str, key: str, other: str, agent: Agent) -> None:
        self.web, self.home, self.container = web, home, container
        self.key, self.other, self.agent = key, other, agent

    def ask(self, method: str, what: str, key: str | None = None, **more: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {key or self.key}", **more.pop("headers", {})}
        url = f"{self.web.base}/api/v1/tenants/alice/{what}"
        return requests.request(method, url, headers=headers, timeout=60, **more)

    def head(self, path: str, key: str | None = None, **headers: str | int) -> bytes:
        lines = [f"PUT /api/v1/tenants/alice/files?path={path} HTTP/1.1", "Host: 127.0.0.1"]
        lines += [f"Authorization: Bearer {key or self.key}"] if key != "" else []
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode()

    def sessions(self) -> int:
        return len(pids.children(self.agent.process_1())) - 1

    def wait_for_no_session(self) -> None:
        deadline = time.monotonic() + 15
        while self.sessions():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    @contextlib.contextmanager
    def releasing(self) -> Iterator[None]:
        """In the block, the claim is about to end."""
        self.web.manage("shell", "-c", STATE.format("releasing"))
        try:
            yield
        finally:
            self.web.manage("shell", "-c", STATE.format("assigned"))


@contextlib.contextmanager
def held_container(directory: Path, home: Path, **limits: str) -> Iterator[Held]:
    ram = directory / "ram"
    ram.mkdir()
    with running(directory, **limits, BOILERHOUSE_RAM_DIR=str(ram)) as web:
        printed = web.manage("shell", "-c", ROWS.replace("HOME", repr(str(home))))
        container, key, other = next(line for line in printed.splitlines() if line.startswith("@")).split()[1:]
        (ram / container).mkdir()
        with Agent(ram / container / "run") as agent, pytest.MonkeyPatch.context() as patch:
            patch.setattr(sealing, "run_dir", lambda _: agent.directory)
            patch.setattr(connections, "run_dir", lambda _: agent.directory)
            assert guest.seal(None, agent.process_1())
            guest.run(None, ("sh", "-c", f"mkdir {home}-secrets; mount -t tmpfs none {home}-secrets"), 9000)
            yield Held(web, home, container, key, other, agent)
