"""A deployment of the bench's own: data directory, database, web, worker, controller and embedded S3, and its end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

ROOT = Path(__file__).resolve().parent.parent
MANAGE = [sys.executable, str(ROOT / "manage.py")]
READY_S = 90
TICKS = os.sysconf("SC_CLK_TCK")
EXAMPLE = {
    "image": "boilerhouse/example-workload:1", "pullPolicy": "never", "stopTimeoutMs": 0,
    "volumes": {"state": {"containerPath": "/state"}, "secrets": {"containerPath": "/run/secrets"}},
    "ports": [{"name": "http", "containerPort": 8080}],
    "resources": {"memoryMb": 32, "tmpfsMb": 8, "pidsLimit": 32},
}  # fmt: skip
"""The workload that benches run."""
KINDS = {
    "boilerhouse.web.server": "web", "schema_program": "web", "run_controller": "controller",
    "run_worker": "worker", "serve\0s3": "S3", "operations.supervise": "supervisor",
}  # fmt: skip


@dataclass
class Api:
    """The few calls that benches need, with nothing in between."""

    base: str
    key: str
    session: requests.Session = field(default_factory=requests.Session)

    def call(self, method: str, path: str, body: Any = None, expect: tuple[int, ...] = (200, 201, 202)) -> Any:
        headers = {"Authorization": f"Bearer {self.key}"}
        answer = self.session.request(method, f"{self.base}/api/v1/{path}", json=body, headers=headers, timeout=120)
        if answer.status_code not in expect:
            raise SystemExit(f"{method} {path} answered {answer.status_code}: {answer.text[:600]}")
        return answer.json() if answer.content else None


@dataclass
class Server:
    """A running deployment. Django of this process looks at the same database and engine."""

    api: Api
    s3: Any
    runtime: Any
    supervisor: int

    def pid(self, kind: str) -> int:
        """The process that the newest living row of this kind names."""
        from boilerhouse.core.models import Process
        from boilerhouse.process import processes

        return Process.objects.filter(pk__in=processes.living(), kind=kind).latest("started_at").pid

    def processes(self) -> list[tuple[str, int]]:
        """What `up` has started, and what that has: kind and process id."""
        children: dict[int, list[int]] = {}
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(name))
        found, left = [], [self.supervisor]
        while left:
            pid = left.pop()
            left += children.get(pid, [])
            try:
                command = Path(f"/proc/{pid}/cmdline").read_text()
            except OSError:
                continue
            kind = next((name for part, name in KINDS.items() if part in command), "")
            if kind:
                found.append((kind, pid))
        return found

    def cpu_s(self) -> dict[tuple[str, int], float]:
        """Processor time, user and system, of each of these processes until now."""
        return {(kind, pid): cpu_s(pid) for kind, pid in self.processes()}

    def memory_kb(self, kind: str = "web") -> int:
        """Resident memory of that process alone."""
        return _memory_kb(self.pid(kind))


def _memory_kb(pid: int) -> int:
    return _line_kb(f"/proc/{pid}/status", "VmRSS:")


def pss_mb(pid: int) -> float:
    """Memory, what is shared counted in parts."""
    return _line_kb(f"/proc/{pid}/smaps_rollup", "Pss:") / 1024


def _line_kb(path: str, name: str) -> int:
    lines = Path(path).read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def cpu_s(pid: int) -> float:
    """Processor time of the process itself, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@contextmanager
def running() -> Iterator[Server]:
    """Set up Django on an empty data directory, start `up --s3`, make a key; at the end stop, purge, remove.

    Raises SystemExit with the log's end when the deployment does not get ready.
    """
    directory = Path(tempfile.mkdtemp(prefix="bh-bench-"))
    os.environ |= {"BOILERHOUSE_DATA_DIR": str(directory), "DJANGO_SETTINGS_MODULE": "boilerhouse.settings"}
    os.environ.setdefault("BOILERHOUSE_LOG_LEVEL", "WARNING")
    os.environ["BOILERHOUSE_THROTTLE_RATE"] = "0"
    import django

    django.setup()
    from boilerhouse.operations.supervisor import embedded_s3, free_port
    from pools import images
    from pools.runtime import get_runtime

    runtime = get_runtime()
    images.ensure_example()
    port, s3 = free_port(), embedded_s3(free_port())
    with (directory / "up.log").open("wb") as log:
        up = subprocess.Popen(
            [*MANAGE, "up", "--s3", "--port", str(port), "--s3-port", s3.endpoint.rsplit(":", 1)[1]],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        base = f"http://127.0.0.1:{port}"
        _wait_ready(base, up, directory / "up.log")
        made = [*MANAGE, "create_api_key", "--name", "bench", "--role", "admin"]
        key = subprocess.run(made, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
        yield Server(Api(base, key), s3, runtime, up.pid)
    finally:
        up.send_signal(signal.SIGTERM)
        up.wait(timeout=30)
        # What the engine keeps (a network whose endpoints it has miscounted) is said, and takes no figure back.
        subprocess.run([*MANAGE, "purge", "--yes"], cwd=ROOT, check=False, stdout=subprocess.DEVNULL)
        shutil.rmtree(directory, ignore_errors=True)


def _wait_ready(base: str, up: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while True:
        try:
            if requests.get(f"{base}/api/v1/health/ready", timeout=5).status_code == 200:
                return
        except requests.RequestException:
            pass
        if time.monotonic() > deadline or up.poll() is not None:
            raise SystemExit(log.read_text()[-3000:])
        time.sleep(0.3)
