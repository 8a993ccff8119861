"""The running product: `manage.py up` with its web, worker, controller and S3, real Docker, and this process's ORM
looking into the same database."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from django.conf import settings

from tests.s3 import S3Server
from tests.waiting import eventually

collect_ignore = [] if "BOILERHOUSE_TEST_RESTART_DATABASE" in os.environ else ["test_database_restart.py"]
"""That one is about PostgreSQL."""
ROOT = Path(__file__).resolve().parents[2]
PAGES_MAY = {"BOILERHOUSE_TERMINAL": "true", "BOILERHOUSE_FILE_BROWSER": "true"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Beside tests that make a test database, these would look into that, and find nothing."""
    apart = [item for item in items if {"stack", "engine"} & set(item.path.parts)]
    if apart and len(apart) != len(items):
        raise pytest.UsageError("Run tests/stack by itself.")


def is_ready(base: str) -> bool:
    try:
        return requests.get(f"{base}/api/v1/health/ready", timeout=5).status_code == 200
    except requests.RequestException:
        return False


def manage(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "manage.py"), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False, **options)


UPLOAD = {"containerPath": "/state", "sinkPath": "state/", "direction": "bidirectional", "mode": "sync"}
"""A mapping of a sync spec."""


@dataclass
class Stack:
    """A running deployment and a key for it."""

    base: str
    key: str
    up: subprocess.Popen[bytes]
    log: Path
    session: requests.Session = field(default_factory=requests.Session)

    def call(self, method: str, path: str, body: Any = None, timeout: float = 120, **options: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.key}", **options.pop("headers", {})}
        return requests.request(
            method, f"{self.base}/api/v1/{path}", json=body, headers=headers, timeout=timeout, **options
        )

    def ok(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        answer = self.call(method, path, body)
        assert answer.status_code == status, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def problem(self, method: str, path: str, body: Any, status: int, code: str) -> dict[str, Any]:
        answer = self.call(method, path, body)
        assert answer.status_code == status, f"{answer.status_code} {answer.text}"
        assert answer.headers["Content-Type"] == "application/problem+json"
        found: dict[str, Any] = answer.json()
        assert found["code"] == code, found
        return found

    def claim(self, tenant: str, pool: str, timeout_ms: int = 60_000, **body: Any) -> dict[str, Any]:
        path = f"tenants/{tenant}/claim?timeoutMs={timeout_ms}"
        claimed: dict[str, Any] = self.ok("POST", path, {"poolId": pool, **body}, 201)
        return claimed

    def release(self, tenant: str, **body: Any) -> None:
        self.ok("POST", f"tenants/{tenant}/release", body)

    def exec(self, container_id: str, script: str, check: bool = True) -> str:
        done = self.ok("POST", f"containers/{container_id}/exec", {"command": ["sh", "-c", script]})
        assert not check or done["exitCode"] == 0, done
        return str(done["stdout"])

    def make_pool(self, *, sink: dict[str, Any] | None = None, warm: int = 1, **over: Any) -> str:
        """A workload, a pool of it, and with ``sink`` a spec that restores and saves /state. Waits until warm."""
        name = f"t-{uuid.uuid4().hex[:8]}"
        workload = {
            "id": name, "name": name, "image": "boilerhouse/example-workload:1", "pullPolicy": "never",
            "volumes": {
                "state": {"containerPath": "/state"}, "secrets": {"containerPath": "/run/secrets"},
                "comm": {"containerPath": "/comm"}, "custom": [{"name": "extra", "containerPath": "/extra"}],
            },
            "ports": [{"name": "http", "containerPort": 8080}],
            "healthCheck": {"command": ["true"]},
            "resources": {"memoryMb": 64, "tmpfsMb": 16, "pidsLimit": 64}, "stopTimeoutMs": 500,
            **over.pop("workload", {}),
        }  # fmt: skip
        mappings = over.pop("mappings", [UPLOAD])
        self.ok("POST", "workloads", workload, 201)
        self.ok(
            "POST", "pools", {"id": name, "workloadId": name, "minSize": warm, "maxSize": max(warm, 2), **over}, 201
        )
        if sink:
            policy = {"onClaim": True, "onRelease": True}
            spec = {"id": name, "poolId": name, "mappings": mappings, "sink": sink, "policy": policy}
            self.ok("POST", "sync-specs", spec, 201)
        self.wait_warm(name, warm)
        return name

    def wait_warm(self, pool: str, count: int = 1, seconds: float = 90) -> None:
        eventually(lambda: self.ok("GET", f"pools/{pool}")["status"]["idle"] >= count, seconds)

    def put_workload(self, name: str, **over: Any) -> dict[str, Any]:
        """Change some fields of a workload, as a client does: GET, change, PUT."""
        changed: dict[str, Any] = self.ok("PUT", f"workloads/{name}", {**self.ok("GET", f"workloads/{name}"), **over})
        return changed

    def pool_status(self, pool: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ok("GET", f"pools/{pool}")["status"]
        return found

    def containers(self, pool: str, state: str = "idle") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ok("GET", f"pools/{pool}/containers?state={state}")["items"]
        return found

    def events(self, type: str, **filters: str) -> list[dict[str, Any]]:
        query = "&".join(f"{name}={value}" for name, value in filters.items())
        found: list[dict[str, Any]] = self.ok("GET", f"events?type={type}&{query}")["items"]
        return found

    def runs(self, tenant: str, **filters: str) -> list[dict[str, Any]]:
        query = "&".join(f"{name}={value}" for name, value in filters.items())
        found: list[dict[str, Any]] = self.ok("GET", f"tenants/{tenant}/runs?{query}")["items"]
        return found

    def drop_pool(self, pool: str) -> None:
        self.call("DELETE", f"pools/{pool}?force=true")

    def status(self, tenant: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ok("GET", f"tenants/{tenant}/status")
        return found


@pytest.fixture(scope="session")
def django_db_setup() -> None:
    """No test database: the tests look into the one that the stack uses."""


@pytest.fixture(scope="session")
def stack(django_db_blocker: Any) -> Iterator[Stack]:
    from boilerhouse.operations.supervisor import free_port
    from pools import images

    images.ensure_example()
    port = free_port()
    over = {"BOILERHOUSE_TERMINAL": "true", "BOILERHOUSE_GATEWAY_PORT": str(free_port())}
    log = Path(settings.BOILERHOUSE_DATA_DIR) / "up.log"
    with log.open("wb") as output:
        up = subprocess.Popen(
            [sys.executable, str(ROOT / "manage.py"), "up", "--port", str(port)],
            cwd=ROOT, env={**os.environ, **PAGES_MAY, **over}, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    base = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        assert up.poll() is None, log.read_text()[-4000:]
        return is_ready(base)

    try:
        eventually(ready, 90, 0.3)
        made = manage("create_api_key", "--name", "tests", "--role", "admin")
        assert made.returncode == 0, made.stderr
        with django_db_blocker.unblock():
            yield Stack(base, made.stdout.strip(), up, log)
    finally:
        if kept := os.environ.get("BOILERHOUSE_TEST_KEEP_LOG"):
            Path(kept).write_bytes(log.read_bytes())
        up.send_signal(signal.SIGTERM)
        try:
            up.wait(timeout=15)
        finally:
            purged = manage("purge", "--yes")
            assert purged.returncode == 0, purged.stderr


def is_tls(test: str) -> bool:
    """Whether a test's sink is an https one; for about half of them in each module, and always for the same ones."""
    return bool(zlib.crc32(test.encode()) & 16)


@pytest.fixture
def sink_server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[S3Server]:
    """An S3 of one test, to stop and to start again: at a plain address, or https by name with a private authority."""
    server = S3Server(tmp_path / "s3", tls=is_tls(request.function.__name__))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def pools(stack: Stack) -> Iterator[Callable[..., str]]:
    """Make pools that are deleted after the test."""
    made: list[str] = []

    def make(**options: Any) -> str:
        made.append(stack.make_pool(**options))
        return made[-1]

    yield make
    for pool in made:
        from tenants.models import Assignment

        for tenant in Assignment.objects.live().filter(pool_id=pool).values_list("tenant_id", flat=True):
            stack.call("POST", f"tenants/{tenant}/release", {"discard": True})
        stack.drop_pool(pool)


from tests.stack.chromium import admins_page, browser, page  # noqa: E402, F401  they need the stack above
from tests.stack.machines import machine  # noqa: E402, F401
from tests.stack.page_server import served  # noqa: E402, F401
